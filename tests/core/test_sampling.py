"""Sampling parameters: what is out of range is refused by name, and what says the same is the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core import RANGES, SamplingParams
from nbllm.errors import ParameterError

_ODD: list[Any] = [True, "1", b"1", [1], {}, math.nan, math.inf, -math.inf, 10**400]


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", _ODD, ids=lambda value: f"{value!r:.10}")
def test_what_is_no_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ParameterError) as refusal:
        SamplingParams(**{"logprobs": True, name: value})
    assert refusal.value.param == name
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("name", RANGES)
def test_range_includes_its_ends_and_says_them(name: str) -> None:
    allowed = RANGES[name]
    for end in (allowed.low, allowed.high):
        value = allowed.kind(end)
        assert getattr(SamplingParams(**{"logprobs": True, name: value}), name) == value
    for outside in (allowed.low - 1, allowed.high + 1):
        with pytest.raises(ParameterError, match=rf"{name}: .* out of range: {allowed.doc[:4]}"):
            SamplingParams(**{"logprobs": True, name: allowed.kind(outside)})


def test_numbers_of_numpy_are_numbers() -> None:
    params = SamplingParams(temperature=np.float32(0.5), top_k=np.int64(5), max_tokens=8.0)  # type: ignore[arg-type]
    assert (params.temperature, params.top_k, params.max_tokens) == (0.5, 5, 8)
    assert type(params.top_k) is type(params.max_tokens) is int


@pytest.mark.parametrize("token", [1.5, True, -1, "x", "1.5", None, math.nan], ids=repr)
def test_bias_of_no_token_is_refused(token: Any) -> None:
    with pytest.raises(ParameterError, match=r"logit_bias.* is not a token id"):
        SamplingParams(logit_bias={token: 1})


def test_bias_of_a_token_as_json_and_numpy_have_it() -> None:
    bias: dict[Any, float] = {"5": -100, np.int32(6): 1.5, 7.0: 100}
    assert SamplingParams(logit_bias=bias).logit_bias == {5: -100, 6: 1.5, 7: 100}


@given(st.lists(st.text(min_size=1)))
def test_stops_are_kept_once_each_in_order(stops: list[str]) -> None:
    kept = SamplingParams(stop=tuple(stops) * 2).stop
    assert list(kept) == list(dict.fromkeys(stops))


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ParameterError, match="did you mean temperature"):
        SamplingParams.from_options({"temprature": 1})
