"""One context of llama.cpp by itself: what is cut, forked or restored gives the logits of a fresh one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nbllm.core import Row, StepStatus
from nbllm.engine.likelihoods import log_softmax
from nbllm.errors import EngineError
from nbllm.llama.backend import LlamaBackend
from nbllm.llama.context import LlamaContext

pytestmark = pytest.mark.model
_CLOSE = 0.1  # neighbours and slice sizes change the order of additions (FACTS: up to 0.05 of a probability)


@pytest.fixture(scope="module")
def backend(smollm2_path: Path) -> Iterator[LlamaBackend]:
    made = LlamaBackend(str(smollm2_path), threads=1)
    yield made
    made.close()


@pytest.fixture
def context(backend: LlamaBackend) -> Iterator[LlamaContext]:
    made = backend.make_context(kv_tokens=512, num_slots=3, unified=True, kv_type="f16")
    yield made
    made.close()


@pytest.fixture(scope="module")
def tokens(backend: LlamaBackend) -> list[int]:
    text = (
        "The river runs to the sea, and the sea is never full; to the place where the river goes, there it goes again."
    )
    return backend.tokenize(text, add_special=True, parse_special=False)


def _evaluate(context: LlamaContext, tokens: list[int], start: int, slot: int) -> int:
    """Evaluate the rest of the tokens; gives the row of the last output."""
    rows = [Row(tokens[place], place, slot, place == len(tokens) - 1) for place in range(start, len(tokens))]
    assert context.decode(rows) is StepStatus.OK
    return len(rows) - 1


def _logprobs(context: LlamaContext, tokens: list[int], start: int, slot: int) -> np.ndarray:
    return log_softmax(context.logits(_evaluate(context, tokens, start, slot)))


def _assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert np.abs(np.exp(found) - np.exp(wanted)).max() < _CLOSE
    assert found.argmax() == wanted.argmax()


def test_cut_fork_and_restore_give_what_a_fresh_evaluation_gives(context: LlamaContext, tokens: list[int]) -> None:
    wanted = _logprobs(context, tokens, 0, 0)
    state = context.save(0)
    assert context.cut(0, 10)
    _assert_same(_logprobs(context, tokens, 10, 0), wanted)
    assert context.fork(0, 1, 12)
    _assert_same(_logprobs(context, tokens, 12, 1), wanted)
    assert context.restore(2, state, len(tokens) - 1)
    _assert_same(_logprobs(context, tokens, len(tokens) - 1, 2), wanted)


def test_cut_to_nothing_forgets(context: LlamaContext, tokens: list[int]) -> None:
    _evaluate(context, tokens, 0, 0)
    assert context.cut(0, 0)
    _evaluate(context, tokens, 0, 0)


def test_cut_beyond_what_is_stored_is_refused(context: LlamaContext, tokens: list[int]) -> None:
    _evaluate(context, tokens, 0, 0)
    assert not context.cut(0, len(tokens) + 5)


def test_full_pool_is_told_and_leaves_the_others_right(context: LlamaContext, tokens: list[int]) -> None:
    wanted = _logprobs(context, tokens, 0, 0)
    rows = [Row(tokens[1], place, 1, False) for place in range(context.pool_capacity)]
    steps = [
        context.decode(rows[start : start + context.max_batch]) for start in range(0, len(rows), context.max_batch)
    ]
    assert steps[-1] is StepStatus.FULL
    context.forget(1)
    assert context.cut(0, 10)
    _assert_same(_logprobs(context, tokens, 10, 0), wanted)


def test_abort_stops_a_step_and_is_taken_back(context: LlamaContext, tokens: list[int]) -> None:
    context.abort()
    assert context.decode([Row(token, place, 0, False) for place, token in enumerate(tokens)]) is StepStatus.ABORTED
    context.abort(False)
    context.cut(0, 0)
    _evaluate(context, tokens, 0, 0)


def test_logits_of_a_row_without_output_are_an_error(context: LlamaContext, tokens: list[int]) -> None:
    context.decode([Row(tokens[0], 0, 0, False), Row(tokens[1], 1, 0, True)])
    with pytest.raises(EngineError, match="no output"):
        context.logits(0)


def test_streams_of_their_own_fork_by_copy(backend: LlamaBackend, tokens: list[int]) -> None:
    context = backend.make_context(kv_tokens=256, num_slots=2, unified=False, kv_type="f16")
    wanted = _logprobs(context, tokens, 0, 0)
    assert context.fork(0, 1, 12)
    _assert_same(_logprobs(context, tokens, 12, 1), wanted)
    context.close()
    context.close()


def test_smaller_keys_and_values_change_little(backend: LlamaBackend, context: LlamaContext, tokens: list[int]) -> None:
    small = backend.make_context(kv_tokens=256, num_slots=1, unified=True, kv_type="q8_0")
    wanted = _logprobs(context, tokens, 0, 0)
    assert np.abs(np.exp(_logprobs(small, tokens, 0, 0)) - np.exp(wanted)).max() < 0.2
    small.close()
