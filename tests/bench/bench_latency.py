"""Bars 4, 6 and 7: first token of a fifth turn, gaps while a long prompt arrives, how long a cancel takes."""

from __future__ import annotations

import itertools
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nbllm.core import Chunk
from nbllm.session.requests import Options
from tests.bench import engine, sides


def _turns() -> dict[str, float]:
    model = engine.load()
    talk = model.conversation()
    first = []
    for topic in engine.TOPICS[:5]:
        answer = talk.send(f"Tell me one short thing about {topic}.", temperature=0, max_tokens=40)
        first.append(answer.timings.first_token_s)
    return {f"turn_{number}_ms": 1e3 * seconds for number, seconds in enumerate(first, 1)} | {
        "turn 5/turn 1 (bar 1)": first[4] / first[0]
    }


def _gaps() -> dict[str, float]:
    """Four streams decode; a prompt of 1,500 tokens arrives. Gaps between a stream's chunks until it is answered."""
    model = engine.load()
    long = " ".join(f"Line {n}: the {engine.TOPICS[n % 10]} are number {n * 17}." for n in range(120))
    arrivals: list[list[float]] = [[] for _ in range(4)]

    def listen(index: int) -> object:
        return lambda chunk: arrivals[index].append(time.perf_counter())

    tickets = [
        model.engine.submit(Options.of(engine.endless(model, 2000)).chat(text), listen(index))  # type: ignore[arg-type]
        for index, text in enumerate(engine.prompts(4))
    ]
    while min(map(len, arrivals)) < 8:
        time.sleep(0.01)
    started = time.perf_counter()
    answer = model.chat(long, max_tokens=4, temperature=0)
    ended = time.perf_counter()
    for ticket in tickets:
        ticket.cancel()
    gaps = sorted(
        later - earlier
        for times in arrivals
        for earlier, later in itertools.pairwise(times)
        if started <= later <= ended
    )
    return {
        "p95_ms": 1e3 * gaps[int(len(gaps) * 0.95)],
        "median_ms": 1e3 * statistics.median(gaps),
        "max_ms": 1e3 * gaps[-1],
        "prompt_tokens": answer.usage.prompt_tokens,
        "first_token_s": answer.timings.first_token_s,
    }


def _cancel() -> dict[str, float]:
    """From cancel() to an engine with nothing running, the median and the worst of several, in prefill and decode."""
    model = engine.load()
    long = " ".join(f"Line {n}: the {engine.TOPICS[n % 10]} are number {n * 17}." for n in range(400))
    took: dict[str, list[float]] = {"prefill": [], "decode": []}
    for round_number in range(10):
        for phase, text in (("prefill", f"{round_number} {long}"), ("decode", f"{round_number} Tell me a story.")):
            took[phase].append(_cancelled(model, text, phase, 0.31 + 0.037 * round_number))
            answer = model.chat(
                "What is the capital of France?", system="You are a helpful assistant.", temperature=0, max_tokens=8
            )
            if "Paris" not in answer.text:
                raise SystemExit(f"wrong after a cancel in {phase}: {answer.text}")
    return {f"{phase}_{name}_ms": 1e3 * how(times) for phase, times in took.items() for name, how in _STATISTICS}


_STATISTICS = (("median", statistics.median), ("max", max))


def _cancelled(model: object, text: str, phase: str, after_s: float) -> float:
    began, done = threading.Event(), threading.Event()

    def listen(chunk: Chunk) -> None:
        began.set()
        if chunk.finish_reason:
            done.set()

    request = Options.of(engine.endless(model, 500, cache_prompt=False)).chat(text)  # type: ignore[arg-type]
    ticket = model.engine.submit(request, listen)  # type: ignore[attr-defined]
    if phase == "decode":
        began.wait()
    time.sleep(after_s)
    started = time.perf_counter()
    ticket.cancel()
    done.wait()
    while model.stats.num_running:  # type: ignore[attr-defined]
        time.sleep(0.0005)
    return time.perf_counter() - started


if __name__ == "__main__":
    sides.main(__file__, {"turns": _turns, "gaps": _gaps, "cancel": _cancel})
