"""Bar 10: the same text to the byte in any order and company, and what it costs against the free batch."""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import nbllm
from tests.bench import engine, sides

_NUM, _NEW = 200, 16
_SYSTEM = "You are a patient teacher. Use plain words, give one example, and never write more than three sentences."


def _ask(model: nbllm.Model, order: list[int], **more: object) -> dict[int, str]:
    texts = engine.prompts(_NUM)
    options = {"temperature": 0.8, "seed": 11, "max_tokens": _NEW, "reproducible": True, "system": _SYSTEM, **more}
    answers = model.chat_many([texts[index] for index in order], **options)  # type: ignore[arg-type]
    return {index: answer.text for index, answer in zip(order, answers, strict=True)}


def _same() -> dict[str, float]:
    model = engine.load()
    order = list(range(_NUM))
    reference = _ask(model, order)
    shuffled = random.Random(1).sample(order, _NUM)
    runs = {"again": _ask(model, order), "shuffled": _ask(model, shuffled)}
    runs["no_cache"] = _ask(model, order, cache_prompt=False)
    stop = threading.Event()
    company = threading.Thread(target=_talk, args=(model, stop))
    company.start()
    runs["company"] = _ask(model, shuffled[::-1])
    stop.set()
    company.join()
    model.close()
    fresh = engine.load()
    runs["resumed"] = _ask(fresh, order[_NUM // 2 :])
    return {
        f"different_{name}": float(sum(text != reference[index] for index, text in run.items()))
        for name, run in runs.items()
    } | {"distinct_texts": float(len(set(reference.values())))}


def _talk(model: nbllm.Model, stop: threading.Event) -> None:
    while not stop.is_set():
        model.chat("Tell me something about ships.", max_tokens=20, reproducible=bool(random.getrandbits(1)))


def _speed(reproducible: bool) -> dict[str, float]:
    model = engine.load()
    model.chat("warm up", max_tokens=2, reproducible=reproducible)
    started = time.perf_counter()
    answers = model.chat_many(
        engine.prompts(64), system=_SYSTEM, reproducible=reproducible, **engine.endless(model, _NEW)
    )
    made = sum(answer.usage.completion_tokens for answer in answers)
    return {"tokens_per_s": made / (time.perf_counter() - started)}


if __name__ == "__main__":
    sides.main(
        __file__,
        {"same": _same, "reproducible": lambda: _speed(True), "free": lambda: _speed(False)},
        ratios={"10 reproducible/free (bar 0.6)": ("tokens_per_s", "reproducible", "free")},
        repeats=1,
    )
