"""What a request gets where it says nothing."""

from __future__ import annotations

from dataclasses import fields

from nbllm.core import SamplingParams
from nbllm.engine.defaults import STATED, resolved


def test_resolved_prefers_the_request_then_the_model_then_the_stated_values() -> None:
    params = resolved(SamplingParams(top_k=7), SamplingParams(top_k=3, min_p=0.2))
    assert (params.top_k, params.min_p, params.temperature) == (7, 0.2, STATED.temperature)


def test_resolved_leaves_only_max_tokens_open() -> None:
    params = resolved(SamplingParams(), SamplingParams())
    assert [spec.name for spec in fields(params) if getattr(params, spec.name) is None] == ["max_tokens"]


def test_zero_is_a_value_and_not_a_gap() -> None:
    params = resolved(SamplingParams(temperature=0, seed=0, top_k=0), SamplingParams(temperature=0.5, top_k=9))
    assert (params.temperature, params.seed, params.top_k) == (0, 0, 0)


def test_seed_is_random_when_none_is_given() -> None:
    assert len({resolved(SamplingParams(), SamplingParams()).seed for _ in range(5)}) > 1
