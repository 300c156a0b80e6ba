"""Parameters reach llama.cpp's samplers, and mean what OpenAI says they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbllm.core import Row, SamplingParams
from nbllm.engine.defaults import STATED
from nbllm.errors import ParameterError
from nbllm.llama.backend import LlamaBackend
from nbllm.llama.context import LlamaContext
from nbllm.session.model import Model

pytestmark = pytest.mark.model
_PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def context(smollm2_path: Path) -> Any:
    backend = LlamaBackend(str(smollm2_path), threads=1)
    made = backend.make_context(kv_tokens=256, num_slots=1, unified=True, kv_type="f16")
    yield made
    made.close()
    backend.close()


def _run(context: LlamaContext, count: int, rows: list[Any] | None = None, **sampling: Any) -> list[int]:
    """A plain loop over one sequence; `rows` gets a copy of the logits before each choice."""
    backend = context.model
    assert isinstance(backend, LlamaBackend)
    tokens = backend.tokenize(_PROMPT, add_special=True, parse_special=False)
    sampler = backend.make_sampler(SamplingParams(**sampling).or_else(STATED), tokens, count)
    context.forget(0)
    context.decode([Row(token, place, 0, place == len(tokens) - 1) for place, token in enumerate(tokens)])
    made: list[int] = []
    row = len(tokens) - 1
    for place in range(len(tokens), len(tokens) + count):
        if rows is not None:
            rows.append(context.logits(row).copy())
        made.append(sampler.sample(context, row))
        context.decode([Row(made[-1], place, 0, True)])
        row = 0
    sampler.close()
    return made


def test_greedy_is_the_likeliest_token(context: LlamaContext) -> None:
    rows: list[Any] = []
    assert _run(context, 6, rows, temperature=0) == [int(row.argmax()) for row in rows]


def test_top_k_of_one_is_greedy(context: LlamaContext) -> None:
    assert _run(context, 6, temperature=2, top_k=1, seed=1) == _run(context, 6, temperature=0)


def test_seed_decides(context: LlamaContext) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert _run(context, 6, **options, seed=1) == _run(context, 6, **options, seed=1)
    assert len({tuple(_run(context, 6, **options, seed=seed)) for seed in range(3)}) > 1


def _openai(row: Any, made: Sequence[int], presence: float, frequency: float) -> int:
    logits = row.astype(np.float64)
    for token, count in Counter(made).items():
        logits[token] -= count * frequency + presence
    return int(logits.argmax())


@pytest.mark.parametrize(("presence", "frequency"), [(1.9, 0.0), (0.0, 1.3), (-1.5, 0.0), (0.7, -0.6)])
def test_penalties_are_openais_formula_over_what_was_generated(
    context: LlamaContext, presence: float, frequency: float
) -> None:
    rows: list[Any] = []
    made = _run(context, 16, rows, temperature=0, presence_penalty=presence, frequency_penalty=frequency)
    assert made == [_openai(row, made[:index], presence, frequency) for index, row in enumerate(rows)]


def test_repeat_penalty_looks_at_the_prompt_too(context: LlamaContext) -> None:
    rows: list[Any] = []
    made = _run(context, 10, rows, temperature=0, repeat_penalty=1.7, repeat_last_n=6)
    seen = context.model.tokenize(_PROMPT, add_special=True, parse_special=False)
    for token, row in zip(made, rows, strict=True):
        logits = row.astype(np.float64)
        for other in set(seen[-6:]):
            logits[other] = logits[other] / 1.7 if logits[other] > 0 else logits[other] * 1.7
        assert token == int(logits.argmax())
        seen.append(token)


def test_bias_of_minus_100_never_appears(context: LlamaContext) -> None:
    first = _run(context, 1, temperature=0)[0]
    assert first not in _run(context, 8, temperature=0, logit_bias={first: -100})


def test_bias_of_100_always_appears(context: LlamaContext) -> None:
    assert _run(context, 4, temperature=1, seed=2, logit_bias={42: 100}) == [42] * 4


def test_accepted_token_counts_as_chosen(context: LlamaContext) -> None:
    backend = context.model
    assert isinstance(backend, LlamaBackend)
    first = _run(context, 1, temperature=0)[0]
    tokens = backend.tokenize(_PROMPT, add_special=True, parse_special=False)
    sampler = backend.make_sampler(SamplingParams(temperature=0, presence_penalty=2).or_else(STATED), tokens, 8)
    for _ in range(2):
        sampler.accept(first)
    context.forget(0)
    context.decode([Row(token, place, 0, place == len(tokens) - 1) for place, token in enumerate(tokens)])
    wanted = _openai(context.logits(len(tokens) - 1), [first, first], 2.0, 0.0)
    assert sampler.sample(context, len(tokens) - 1) == wanted


def test_engine_gives_the_text_of_a_plain_loop(context: LlamaContext, smollm2: Model) -> None:
    wanted = _run(context, 12, temperature=0)
    assert list(smollm2.complete(_PROMPT, temperature=0, max_tokens=12, cache_prompt=False).tokens) == wanted


def test_bias_that_bans_every_token_is_refused(context: LlamaContext) -> None:
    everything = dict.fromkeys(range(context.model.vocabulary_size), -100.0)
    with pytest.raises(ParameterError, match="bans every token"):
        _run(context, 1, logit_bias=everything)
    del everything[500]
    assert _run(context, 2, logit_bias=everything, temperature=1, seed=1) == [500, 500]
