from __future__ import annotations

from typing import Any

import pytest

from nbllm.core import Preset, SamplingParams
from nbllm.errors import ParameterError
from nbllm.store.presets.params import MAX_STOPS, WITHOUT_EFFECT, Params, read, written


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, Params(), id="nothing"),
        pytest.param({"temperature": "0.5"}, Params(sampling=SamplingParams(temperature=0.5)), id="text"),
        pytest.param({"top_k": 5, "top_p": 1}, Params(sampling=SamplingParams(top_k=5, top_p=1.0)), id="numbers"),
        pytest.param({"top_k": "1e1"}, Params(sampling=SamplingParams(top_k=10)), id="exponent"),
        pytest.param({"top_k": -1}, Params(sampling=SamplingParams(top_k=0)), id="top_k-off"),
        pytest.param({"num_predict": 5}, Params(sampling=SamplingParams(max_tokens=5)), id="num_predict"),
        pytest.param({"num_predict": -2}, Params(sampling=SamplingParams(max_tokens=2**31 - 1)), id="no-limit"),
        pytest.param({"num_predict": "0"}, Params(sampling=SamplingParams(max_tokens=2**31 - 1)), id="no-limit-0"),
        pytest.param({"max_tokens": 0}, Params(sampling=SamplingParams(max_tokens=0)), id="max_tokens"),
        pytest.param({"seed": -1}, Params(), id="any-seed"),
        pytest.param({"seed": 2**32}, Params(sampling=SamplingParams(seed=1)), id="large-seed"),
        pytest.param({"repeat_last_n": -1}, Params(sampling=SamplingParams(repeat_last_n=2**20)), id="all"),
        pytest.param({"stop": "a"}, Params(sampling=SamplingParams(stop=("a",))), id="one-stop"),
        pytest.param({"stop": ["a", "b"]}, Params(sampling=SamplingParams(stop=("a", "b"))), id="stops"),
        pytest.param({"num_ctx": 64, "num_thread": 2}, Params(context_length=64, threads=2), id="load"),
        pytest.param({"context_length": "64", "threads": 0}, Params(context_length=64), id="load-ours"),
        pytest.param(
            {"num_gpu": 1, "use_mmap": False, "f16_kv": "x"},
            Params(ignored={"num_gpu": "1", "use_mmap": "false", "f16_kv": "x"}),
            id="without-effect",
        ),
    ],
)
def test_read(given: dict[str, Any], expected: Params) -> None:
    assert read(given) == expected


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"tempratur": 1}, "^at.tempratur: is not an option; did you mean temperature"),
        ({"logprobs": True}, "^at.logprobs: is not an option"),
        ({"temperature": "warm"}, "^at.temperature: must be a number, not 'warm'"),
        ({"temperature": "nan"}, "^at.temperature: must be a number"),
        ({"temperature": "1_0"}, "^at.temperature: must be a number"),
        ({"temperature": float("inf")}, "^at.temperature: must be a number"),
        ({"temperature": None}, "^at.temperature: must be a number, not NoneType"),
        ({"temperature": -1}, "^at.temperature: .* out of range"),
        ({"temperature": 10**9999}, "^at.temperature: is out of range"),
        ({"temperature": "9" * 9999}, "^at.temperature: must be a number"),
        ({"top_k": 1.5}, "^at.top_k: must be a whole number"),
        ({"top_k": True}, "^at.top_k: must be a whole number"),
        ({"top_p": [1]}, "^at.top_p: must be a number, not list"),
        ({"num_ctx": 0}, "^at.num_ctx: .* out of range: from 1 to"),
        ({"num_thread": -1}, "^at.num_thread: .* out of range"),
        ({"max_tokens": -1}, "^at.max_tokens: .* out of range"),
        ({"stop": ""}, "^at.stop: must be a text"),
        ({"stop": [1]}, "^at.stop: must be a text"),
        ({"stop": ["a"] * (MAX_STOPS + 1)}, "^at.stop: has 65 texts"),
        ({"num_gpu": [1]}, "^at.num_gpu: must be a text or a number, not list"),
        ({"num_gpu": 10**9999}, "^at.num_gpu: has too many digits"),
        ({"num_ctx": 1, "context_length": 1}, "^at.context_length: is there as context_length and as num_ctx"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_read_refuses(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ParameterError, match=match):
        read(given, "at.")


def test_read_unknown_name_lists_only_what_has_an_effect() -> None:
    with pytest.raises(ParameterError) as refused:
        read({"@": 1})

    assert "num_ctx" in str(refused.value)
    assert not any(name in str(refused.value) for name in WITHOUT_EFFECT)


def test_written_is_what_read_takes() -> None:
    sampling = SamplingParams(temperature=0.0, max_tokens=3, seed=4, stop=("a", "b"))
    preset = Preset(name="a", base="b", sampling=sampling, context_length=64, threads=2, ignored={"num_gpu": "1"})

    values = written(preset)

    assert list(values) == ["temperature", "max_tokens", "seed", "context_length", "threads", "stop"]
    assert read(values) == Params(sampling=sampling, context_length=64, threads=2)
    assert written(Preset(name="a", base="b")) == {}
