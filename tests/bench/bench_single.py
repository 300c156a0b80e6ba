"""Bar 3: decode speed of one sequence against `llama_cpp.Llama`, and Python's share of a step at 8 sequences."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nbllm.llama.sampler import Sampler
from tests.bench import engine, raw, sides

_NEW = 128
_TEXT = "Write a long story about a lighthouse keeper."


def _engine() -> dict[str, float]:
    model = engine.load()
    answer = model.chat(_TEXT, **engine.endless(model, _NEW))
    return {"tokens_per_s": answer.timings.tokens_per_s(answer.usage.completion_tokens)}


def _llama() -> dict[str, float]:
    model = raw.llama(n_ctx=2048)
    stream = model.create_completion(
        raw.chatml(_TEXT), max_tokens=_NEW, temperature=0, logit_bias=dict.fromkeys((0, 2, 4), -100.0), stream=True
    )
    times = [time.perf_counter() for _ in stream]
    return {"tokens_per_s": (_NEW - 1) / (times[_NEW - 1] - times[0])}


def _share() -> dict[str, float]:
    """What full-width decode steps spend in Python, and in llama.cpp's samplers beside it."""
    model = engine.load(max_sequences=8)
    lane = model.engine._free  # type: ignore[attr-defined]
    step = lane.step
    decoding, sampling = _Clock(), _Clock()
    lane._context.decode = decoding.timed(lane._context.decode)
    Sampler.sample = sampling.timed(Sampler.sample)  # type: ignore[method-assign]
    spent: list[tuple[float, float, float]] = []

    def timed_step(threads: int, prefill_threads: Callable[[], int]) -> object:
        started, before = time.perf_counter(), (decoding.total, sampling.total)
        report = step(threads, prefill_threads)
        if report is not None and report.shape == (8, 0):
            whole = time.perf_counter() - started
            spent.append((whole, decoding.total - before[0], sampling.total - before[1]))
        return report

    lane.step = timed_step
    speed = engine.many(model, 16, 48)
    whole, decode, sample = (sum(part) for part in zip(*spent, strict=True))
    return {
        "python_share (bar 0.04)": (whole - decode - sample) / whole,
        "native_sampling_share": sample / whole,
        "steps": len(spent),
        "tokens_per_s": speed,
    }


class _Clock:
    """Adds up the time that a function takes."""

    def __init__(self) -> None:
        self.total = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object, **options: object) -> object:
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.total += time.perf_counter() - started

        return call


if __name__ == "__main__":
    sides.main(
        __file__,
        {"engine": _engine, "llama": _llama, "share": _share},
        ratios={"3 engine/Llama (bar 0.97)": ("tokens_per_s", "engine", "llama")},
    )
