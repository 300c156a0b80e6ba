"""`score`, `judge` and `prefer`."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from nbllm.core import GenerateRequest
from nbllm.errors import ParameterError
from tests.frames.verbs.replying import last_line, replying

QUIET: dict[str, Any] = {"cache": False, "progress": False}
FRAME = pd.DataFrame(
    {"question": ["q1", "q2", "q3"], "reply": ["fine", None, "bad"], "gold": ["g1", "g2", "g3"], "other": "fine"}
)


def _mark(prompt: str) -> str:
    return {"fine": "4", "bad": "-1"}.get(last_line(prompt), "0")


def test_score_is_a_whole_number_of_the_scale() -> None:
    model, engine = replying(_mark)
    result = FRAME.llm.score("How polite is {reply}?", low=-1, high=4, model=model, **QUIET)
    assert result["score"].dtype == "Int64"
    assert result["score"].fillna(99).tolist() == [4, 99, -1]
    request = engine.requests[0]
    assert isinstance(request, GenerateRequest)
    assert request.constraint is not None
    assert json.loads(request.constraint.source) == ["-1", "0", "1", "2", "3", "4"]
    assert "from -1 (worst) to 4 (best)" in engine.prompts[0]
    assert engine.prompts[0].endswith("What counts: How polite is reply?\n\nreply:\nbad")


def test_score_of_a_series_needs_no_braces() -> None:
    model, engine = replying(_mark)
    result = FRAME["reply"].llm.score("Politeness", into="polite", model=model, **QUIET)
    assert isinstance(result, pd.Series)
    assert (result.name, result.dtype) == ("polite", "Int64")
    assert engine.prompts[0].endswith("What counts: Politeness\n\nText:\nbad")


def test_examples_of_scores_are_marks() -> None:
    model, engine = replying(_mark)
    shots = pd.DataFrame({"reply": ["x"], "score": [3.0]})
    FRAME.llm.score("{reply:>9}", examples=shots, model=model, **QUIET)
    request = engine.requests[0]
    assert isinstance(request, GenerateRequest)
    assert (request.messages or ())[1].content == "3"
    with pytest.raises(ParameterError, match="9 is no mark from 1 to 5"):
        FRAME.llm.score("{reply}", examples=shots.assign(score=9), model=model, **QUIET)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"low": 5, "high": 5}, "high: must be above low=5"),
        ({"low": 0, "high": 200}, "by at most 100"),
        ({"low": 0.5}, "low: must be a whole number"),
        ({"high": "5"}, "high: must be a whole number"),
    ],
    ids=["same", "too wide", "no whole number", "text"],
)
def test_a_scale_that_is_none_is_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        FRAME.llm.score("{reply}", **options)


def test_judge_is_shown_question_reference_and_answer_in_this_order() -> None:
    model, engine = replying(_mark)
    result = FRAME.llm.judge(
        "right for {other}", answer="reply", reference="gold", question="question", model=model, **QUIET
    )
    assert result["judge_score"].fillna(99).tolist() == [4, 99, -1]
    assert engine.prompts[0].endswith(
        "Rubric: right for other\n\nother:\nfine\n\nQuestion:\nq1\n\nReference answer:\ng1\n\nAnswer:\nfine"
    )
    assert "against the reference answer and the rubric" in engine.prompts[0]


def test_judge_of_a_series_and_without_a_rubric() -> None:
    model, engine = replying(_mark)
    result = FRAME["reply"].llm.judge(model=model, **QUIET)
    assert result.fillna(99).tolist() == [4, 99, -1]
    assert "Rubric: The answer is correct" in engine.prompts[0]


def test_judge_without_an_answer_says_what_to_name() -> None:
    with pytest.raises(ParameterError, match="answer='reply'"):
        FRAME.llm.judge("good")
    with pytest.raises(ParameterError, match="reference: there is no column 'glod'; did you mean 'gold'"):
        FRAME.llm.judge(answer="reply", reference="glod")


def _prefers_fine(prompt: str) -> str:
    first = prompt.split("Answer A:\n")[1].splitlines()[0]
    return "A" if first in ("fine", "same") else "B"


def test_prefer_names_the_column_that_wins_in_both_orders() -> None:
    frame = pd.DataFrame({"x": ["fine", "bad", "same", None], "y": ["bad", "fine", "same", "fine"]})
    model, engine = replying(_prefers_fine)
    result = frame.llm.prefer("x", "y", "clarity", model=model, details=True, **QUIET)
    assert result["preferred"].fillna("-").tolist() == ["x", "y", "tie", "-"]
    assert result["preferred"].dtype == "str"
    assert len(engine.requests) == 3  # fine against bad is asked once, whichever row it is in; the same twice is one
    assert result["preferred_output_tokens"].fillna(0).tolist() == [2, 2, 2, 0]


def test_prefer_without_swapping_asks_once_a_row() -> None:
    frame = pd.DataFrame({"x": ["fine"], "y": ["bad"], "q": ["why"]})
    model, engine = replying(lambda _: "B")
    shots = pd.DataFrame({"x": ["1"], "y": ["2"], "q": ["?"], "best": ["y"]})
    result = frame.llm.prefer(
        "x", "y", "for {q}", question="q", swap=False, into="best", examples=shots, model=model, **QUIET
    )
    assert result["best"].tolist() == ["y"]
    (request,) = engine.requests
    assert isinstance(request, GenerateRequest)
    assert (request.messages or ())[1].content == "B"
    assert engine.prompts[0].endswith("q:\nwhy\n\nQuestion:\nwhy\n\nAnswer A:\nfine\n\nAnswer B:\nbad")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda a: a.prefer("reply", "reply"), "b: is the same column"),
        (lambda a: a.prefer("reply", "other", swap=1), "swap: must be"),
        (lambda a: a.prefer("reply", "other", criteria="{nope}"), "^criteria: there is no column 'nope'"),
        (lambda a: a.prefer("reply", "othr"), "did you mean 'other'"),
        (
            lambda a: a.prefer("reply", "other", examples=FRAME.dropna().assign(preferred="gold")),
            "must have 'reply' or 'other'",
        ),
    ],
    ids=["same column", "swap", "criteria", "near miss", "examples"],
)
def test_bad_preferences_are_one_line(call: Any, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        call(FRAME.llm)
