"""Bar 3: decode speed of one sequence against `llama_cpp.Llama`, and Python's share of a step at 8 sequences."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

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
    """Time in the loop that is not llama.cpp's, over full-width decode steps."""
    model = engine.load(max_sequences=8)
    lane = model.engine._free  # type: ignore[attr-defined]
    step, decode = lane.step, lane._context.decode
    whole: list[float] = []
    inside: list[float] = []

    def timed_decode(rows: list[object], **options: bool) -> object:
        started = time.perf_counter()
        status = decode(rows, **options)
        inside.append(time.perf_counter() - started)
        return status

    def timed_step(threads: int, prefill_threads: int) -> object:
        started, known = time.perf_counter(), len(inside)
        report = step(threads, prefill_threads)
        if len(inside) == known + 1 and report is not None and report.shape == (8, 0):
            whole.append(time.perf_counter() - started - inside[-1])
            kept.append(inside[-1])
        return report

    kept: list[float] = []
    lane.step, lane._context.decode = timed_step, timed_decode
    speed = engine.many(model, 16, 48)
    return {"python_share": sum(whole) / (sum(whole) + sum(kept)), "steps": len(whole), "tokens_per_s": speed}


if __name__ == "__main__":
    sides.main(
        __file__,
        {"engine": _engine, "llama": _llama, "share": _share},
        ratios={"3 engine/Llama (bar 0.97)": ("tokens_per_s", "engine", "llama")},
    )
