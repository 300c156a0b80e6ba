"""Bars 1 and 2: 32 prompts of 48 new tokens, different ones, and under a common instruction of 400 tokens.

Sides: raw calls of the same shape, the engine, a loop over `llama_cpp.Llama.create_chat_completion`; with the common
instruction also the engine with its reuse off. End-of-turn is banned on all sides, temperature 0.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import raw, sides

_NUM, _NEW, _WIDTH = 32, 48, 8
_TOPICS = [
    "rivers",
    "bridges",
    "violins",
    "volcanoes",
    "lighthouses",
    "glaciers",
    "bees",
    "clocks",
    "maps",
    "windmills",
    "kites",
    "trains",
]
_PLAIN = [f"Write a paragraph about {_TOPICS[i % 12]} for reader number {i * 7 + 3}." for i in range(_NUM)]
_INSTRUCTION = " ".join(
    f"Rule {n}: answer in plain words, keep sentences short, and mention the {_TOPICS[n % 12]} at most once."
    for n in range(1, 19)
)


def _raw(common: bool) -> dict[str, float]:
    loop = raw.RawLoop(_WIDTH)
    system = _INSTRUCTION if common else None
    prompts = [loop.ids(raw.chatml(text, system) if system else raw.chatml(text)) for text in _PLAIN]
    shared = _shared(prompts) if common else 0
    loop.run(prompts[:2], 4)
    started = time.perf_counter()
    made = loop.run(prompts, _NEW, shared)
    return {"tokens_per_s": made / (time.perf_counter() - started), "shared": shared}


def _shared(prompts: list[list[int]]) -> int:
    return next(i for i, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1)


def _engine(common: bool, reuse: bool = True) -> dict[str, float]:
    import nbllm

    model = nbllm.load("smollm2", max_sequences=_WIDTH)
    bias = dict.fromkeys((0, 2, 4), -100)
    options: dict[str, Any] = {"temperature": 0, "max_tokens": _NEW, "logit_bias": bias, "cache_prompt": reuse}
    model.chat_many(["Hello there.", "Good day."], **{**options, "max_tokens": 4})
    started = time.perf_counter()
    answers = model.chat_many(_PLAIN, system=_INSTRUCTION if common else None, **options)
    elapsed = time.perf_counter() - started
    return {
        "tokens_per_s": sum(answer.usage.completion_tokens for answer in answers) / elapsed,
        "cached_tokens": sum(answer.usage.cached_tokens for answer in answers),
        "prompt_tokens": sum(answer.usage.prompt_tokens for answer in answers),
    }


def _llama(common: bool) -> dict[str, float]:
    model = raw.llama(n_ctx=2048)
    bias = dict.fromkeys((0, 2, 4), -100.0)
    system = [{"role": "system", "content": _INSTRUCTION}] if common else []
    made, started = 0, time.perf_counter()
    for text in _PLAIN:
        answer = model.create_chat_completion(
            [*system, {"role": "user", "content": text}], max_tokens=_NEW, temperature=0, logit_bias=bias
        )
        made += answer["usage"]["completion_tokens"]
    return {"tokens_per_s": made / (time.perf_counter() - started)}


SIDES = {
    "raw": lambda: _raw(False),
    "engine": lambda: _engine(False),
    "llama": lambda: _llama(False),
    "raw-prefix": lambda: _raw(True),
    "engine-prefix": lambda: _engine(True),
    "engine-prefix-no-reuse": lambda: _engine(True, reuse=False),
    "llama-prefix": lambda: _llama(True),
}
RATIOS = {
    "1 engine/raw (bar 0.95)": ("tokens_per_s", "engine", "raw"),
    "1 engine/Llama (bar 1.5)": ("tokens_per_s", "engine", "llama"),
    "2 engine/raw (bar 0.95)": ("tokens_per_s", "engine-prefix", "raw-prefix"),
    "2 engine/no reuse (bar 4)": ("tokens_per_s", "engine-prefix", "engine-prefix-no-reuse"),
    "2 engine/Llama (bar 1.1)": ("tokens_per_s", "engine-prefix", "llama-prefix"),
}

if __name__ == "__main__":
    sides.main(__file__, SIDES, ratios=RATIOS)
