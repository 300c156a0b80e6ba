"""The memory plan: within the budget, honest about what was asked, refused with numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core import ModelInfo
from nbllm.engine.plan import KV_TYPES, Plan, lane_tokens, plan
from nbllm.errors import InsufficientMemoryError, ParameterError

_GIB = 2**30
_counts = st.integers(1, 40_000)


def _model(
    size_bytes: int = 5 * _GIB, kv_bytes: int = 128 * 1024, trained: int = 8192, vocabulary: int = 128_000
) -> ModelInfo:
    return ModelInfo(
        name="m",
        path="m.gguf",
        size_bytes=size_bytes,
        kv_bytes_per_token=kv_bytes,
        context_length=trained,
        vocabulary_size=vocabulary,
        embedding_length=4096,
    )


def _planned(model: ModelInfo, free_bytes: int, fraction: float = 0.8, **asked: Any) -> Plan | None:
    try:
        return plan(model, free_bytes=free_bytes, fraction=fraction, **asked)
    except InsufficientMemoryError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert len(re.findall(r"\d+(\.\d)? [GM]iB", refusal)) >= 3
    return None


@given(
    size=st.integers(0, 20 * _GIB),
    kv_bytes=st.integers(0, 2**18),
    trained=st.integers(0, 200_000),
    free=st.integers(0, 64 * _GIB),
    max_sequences=st.integers(1, 64),
    asked=st.fixed_dictionaries({}, optional={"context_length": _counts, "kv_type": st.sampled_from(list(KV_TYPES))}),
)
def test_plan_fits_or_is_refused(
    size: int, kv_bytes: int, trained: int, free: int, max_sequences: int, asked: dict[str, Any]
) -> None:
    chosen = _planned(_model(size, kv_bytes, trained), free, max_sequences=max_sequences, **asked)
    if chosen is None:
        return
    kv = chosen.kv_tokens * (kv_bytes or 128 * 1024) * KV_TYPES[chosen.kv_type]
    assert size + kv + chosen.store_bytes <= 0.8 * free
    assert chosen.max_sequences == max_sequences
    assert chosen.kv_tokens >= chosen.context_length
    for name, value in asked.items():
        assert getattr(chosen, name) == value


@given(context=_counts, pool=_counts)
def test_pool_that_is_asked_for_is_honoured(context: int, pool: int) -> None:
    if pool < context:
        with pytest.raises(ParameterError, match="less than context_length"):
            _planned(_model(), 64 * _GIB, context_length=context, kv_tokens=pool)
        return
    chosen = _planned(_model(), 64 * _GIB, context_length=context, kv_tokens=pool)
    assert chosen is not None
    assert chosen.context_length == context
    assert pool <= chosen.kv_tokens < pool + 256


@given(pool=_counts)
def test_pool_without_a_context_gets_a_context_that_fits_into_it(pool: int) -> None:
    chosen = _planned(_model(), 64 * _GIB, kv_tokens=pool)
    assert chosen is not None
    assert chosen.context_length <= chosen.kv_tokens < pool + 256


def test_small_memory_gets_a_shorter_context_instead_of_a_refusal() -> None:
    roomy, tight = _planned(_model(), 32 * _GIB), _planned(_model(), 8 * _GIB)
    assert roomy is not None
    assert tight is not None
    assert roomy.context_length == 8192
    assert 512 <= tight.context_length <= 8192
    assert tight.kv_tokens * KV_TYPES[tight.kv_type] < roomy.kv_tokens * KV_TYPES[roomy.kv_type]


def test_refusal_says_what_to_ask_for_and_that_fits() -> None:
    with pytest.raises(InsufficientMemoryError) as refusal:
        plan(_model(), free_bytes=10 * _GIB, fraction=0.8, context_length=500_000, kv_type="f16")
    named = re.search(r"context_length=(\d+)", str(refusal.value))
    assert named is not None
    assert _planned(_model(), 10 * _GIB, context_length=int(named[1]), kv_type="f16") is not None


@pytest.mark.parametrize("context", [8192, 500_000], ids=["a context that fits", "a context that is too long, too"])
def test_refusal_of_a_pool_names_what_is_too_large(context: int) -> None:
    asked = {"context_length": context, "kv_tokens": 500_000}
    with pytest.raises(InsufficientMemoryError) as refusal:
        plan(_model(), free_bytes=10 * _GIB, fraction=0.8, kv_type="f16", **asked)
    advice = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", str(refusal.value))}
    assert set(advice) == {name for name, count in asked.items() if count == 500_000}
    assert _planned(_model(), 10 * _GIB, kv_type="f16", **{**asked, **advice}) is not None


def test_model_that_cannot_fit_at_all_is_refused() -> None:
    with pytest.raises(InsufficientMemoryError, match="smaller model"):
        plan(_model(), free_bytes=2 * _GIB, fraction=0.8)


def test_summary_is_one_line_that_says_what_was_chosen() -> None:
    chosen = _planned(_model(trained=2048), 32 * _GIB, context_length=4096)
    assert chosen is not None
    assert "\n" not in chosen.summary
    assert "context 4,096 (trained for 2,048)" in chosen.summary


@pytest.mark.parametrize(
    ("options", "named"),
    [
        pytest.param({"context_length": 0}, "context_length", id="no context"),
        pytest.param({"context_length": True}, "context_length", id="a flag as a number"),
        pytest.param({"context_length": 2**40}, "context_length", id="context beyond all"),
        pytest.param({"context_length": "8k"}, "context_length", id="a text"),
        pytest.param({"max_sequences": 0}, "max_sequences", id="no sequence"),
        pytest.param({"max_sequences": 65}, "max_sequences", id="too many sequences"),
        pytest.param({"kv_type": "q1"}, "kv_type", id="unknown type"),
        pytest.param({"kv_tokens": -1}, "kv_tokens", id="negative pool"),
    ],
)
def test_value_out_of_range_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        plan(_model(), free_bytes=64 * _GIB, fraction=0.8, **options)
    assert refusal.value.param == named


@pytest.mark.parametrize(
    ("free_gib", "tokens"),
    [pytest.param(64, 16384, id="plenty"), pytest.param(2, 8192, id="less"), pytest.param(0.5, None, id="too little")],
)
def test_another_pool_is_as_large_as_fits_down_to_one_context(free_gib: float, tokens: int | None) -> None:
    chosen = plan(_model(), free_bytes=64 * _GIB, fraction=0.75, kv_type="f16")

    def pool() -> int:
        free_bytes = int(free_gib * _GIB)
        return lane_tokens(_model(), chosen, 16384, 4096, free_bytes=free_bytes, fraction=0.75, extra_bytes=2**26)

    if tokens is None:
        with pytest.raises(InsufficientMemoryError, match=r"LoRA adapters need .* more") as caught:
            pool()
        assert "\n" not in str(caught.value)
    else:
        assert pool() == tokens


def test_another_pool_of_larger_steps_needs_more() -> None:
    pools = []
    for max_batch in (256, 1024):
        chosen = plan(_model(), free_bytes=64 * _GIB, fraction=0.75, kv_type="f16", max_batch=max_batch)
        assert chosen.max_batch == max_batch
        pools.append(lane_tokens(_model(), chosen, 16384, 256, free_bytes=3 * _GIB, fraction=0.75, extra_bytes=0))
    assert 256 < pools[1] < pools[0]
