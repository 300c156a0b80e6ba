"""The engine's side of a benchmark: the bundled model, end-of-turn banned where answers need their full length."""

from __future__ import annotations

import time
from typing import Any

import nbllm
from tests.bench.raw import ends

TOPICS = ("rivers", "bridges", "violins", "volcanoes", "bees", "clocks", "maps", "windmills", "kites", "trains")


def load(**options: Any) -> nbllm.Model:
    """The bundled model, warmed up."""
    model = nbllm.load("smollm2", **options)
    model.chat("Hello.", max_tokens=8, temperature=0, cache_prompt=False)
    return model


def endless(model: nbllm.Model, num_tokens: int, **more: Any) -> dict[str, Any]:
    """Options for greedy answers of exactly `num_tokens`."""
    bias = dict.fromkeys(ends(model.engine._backend), -100)  # type: ignore[attr-defined]
    return {"temperature": 0, "max_tokens": num_tokens, "logit_bias": bias, **more}


def prompts(count: int) -> list[str]:
    return [f"Write a paragraph about {TOPICS[i % len(TOPICS)]} for reader number {i * 7 + 3}." for i in range(count)]


def many(model: nbllm.Model, count: int, num_tokens: int, **more: Any) -> float:
    """Tokens a second of `chat_many`."""
    started = time.perf_counter()
    answers = model.chat_many(prompts(count), **endless(model, num_tokens, **more))
    return sum(answer.usage.completion_tokens for answer in answers) / (time.perf_counter() - started)
