"""What one row's answer comes to, and what is said of one that is none."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from nbllm.chat import constraints
from nbllm.core import Constraint, FinishReason, GenerateRequest, Message, SamplingParams, Timings, Usage
from nbllm.errors import ContextOverflowError, EngineError, NbllmError, ParameterError
from nbllm.frames.asks import Ask
from nbllm.frames.landing import MisfitError, of_row, outcome_of_response
from nbllm.frames.templates import TemplateError
from nbllm.session.response import Response


def request(constraint: Constraint | None, max_tokens: int | None = None) -> GenerateRequest:
    sampling = SamplingParams(max_tokens=max_tokens)
    return GenerateRequest(messages=(Message("user", "a"),), constraint=constraint, sampling=sampling)


def response(finish_reason: FinishReason, num_tokens: int, text: str = "12") -> Response:
    return Response(
        text=text, finish_reason=finish_reason, usage=Usage(5, num_tokens), timings=Timings(0, 0, 0, 0), model="toy"
    )


@pytest.mark.parametrize(
    ("finish_reason", "max_tokens", "num_tokens", "says"),
    [
        pytest.param("length", 1200, 1200, r"cut at 1,200 tokens, .*; give a larger max_tokens=$", id="at its end"),
        pytest.param("length", 20, 0, r"cut at 20 tokens", id="a server that does not count"),
        pytest.param("length", 20, 7, r"the context was full, .*context_length=$", id="context"),
        pytest.param("length", None, 7, r"the context was full", id="context alone"),
        pytest.param("timeout", 20, 7, r"cut by timeout, .*; give a longer timeout=$", id="time"),
    ],
)
def test_answer_without_its_form_says_what_to_give(
    finish_reason: Any, max_tokens: int | None, num_tokens: int, says: str
) -> None:
    shape = constraints.from_response_format(int)
    ask = Ask(request(shape, max_tokens))
    outcome = outcome_of_response(ask, response(finish_reason, num_tokens), cached=False)
    with pytest.raises(NbllmError, match=says):
        raise outcome.error or AssertionError
    free = outcome_of_response(Ask(request(None, max_tokens)), response(finish_reason, num_tokens), cached=False)
    assert free.error is None


def test_row_says_what_does_not_fit_and_keeps_the_answer() -> None:
    ask = Ask(request(None), lambda answer: f"{answer.text} is too much", "row 3")
    outcome = outcome_of_response(ask, response("stop", 2), cached=True)
    assert isinstance(outcome.error, MisfitError)
    assert str(outcome.error) == "row 3: 12 is too much"
    assert isinstance(outcome.value, Response)
    assert outcome.cached


@pytest.mark.parametrize(
    "error",
    [
        EngineError("broke"),
        ParameterError("n", "is bad"),
        TemplateError("prompt", "is bad"),
        ContextOverflowError(9, 4),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_of_a_row_is_the_same_with_the_rows_name(error: NbllmError) -> None:
    before = str(error)
    error.__cause__ = ValueError("why")
    for _ in range(2):
        named = of_row("row 3", error)
        assert type(named) is type(error)
        assert str(named) == f"row 3: {before}"
        assert named.__cause__ is error.__cause__
        assert isinstance(pickle.loads(pickle.dumps(named)), type(error))
    assert str(error) == before
    assert of_row("", error) is error
