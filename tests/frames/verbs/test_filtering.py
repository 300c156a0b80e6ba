from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from nbllm.core import GenerateRequest
from nbllm.errors import EngineError, ParameterError
from tests.frames.verbs.replying import last_line, replying

QUIET: dict[str, Any] = {"cache": False, "progress": False}
FRAME = pd.DataFrame({"text": ["good", None, "poor", "good"], "n": [1, 2, 3, 4]}, index=[1, 1, 1, 0])


def _reply(prompt: str) -> Any:
    return {"good": "yes", "poor": "no", "broken": EngineError("it broke")}[last_line(prompt)]


def test_true_rows_stay_as_they_are() -> None:
    model, engine = replying(_reply)
    result = FRAME.llm.filter("{text} is praise", model=model, **QUIET)
    pd.testing.assert_frame_equal(result, FRAME.iloc[[0, 3]])
    assert engine.prompts[0] == "Is this statement true? Answer yes or no.\nStatement: text is praise\n\ntext:\ngood"


def test_series_needs_no_braces_and_keeps_its_name() -> None:
    model, engine = replying(_reply)
    for name in ("text", None, 7):
        series = FRAME["text"].rename(name)
        pd.testing.assert_series_equal(series.llm.filter("is praise", model=model, **QUIET), series.iloc[[0, 3]])
    assert FRAME["text"].llm.filter("{} is praise", model=model, **QUIET).tolist() == ["good", "good"]
    beginning = "Is this statement true? Answer yes or no.\nStatement:"
    assert f"{beginning} the text is praise\n\nText:\ngood" in engine.prompts
    assert f"{beginning} is praise\n\nText:\ngood" in engine.prompts


def test_failed_rows_are_not_lost() -> None:
    frame = pd.DataFrame({"text": ["good", "broken", "poor"]})
    result = frame.llm.filter("{text} is praise", model=replying(_reply)[0], **QUIET)
    assert result["text"].tolist() == ["good", "broken"]
    assert result["filter_error"].fillna("-").tolist() == ["-", "it broke"]
    skipped = frame.llm.filter("{text} is praise", model=replying(_reply)[0], on_error="skip", **QUIET)
    pd.testing.assert_frame_equal(skipped, frame.iloc[[0]])


def test_examples_are_yes_and_no() -> None:
    model, engine = replying(_reply)
    shots = pd.DataFrame({"text": ["x", "y"], "filter": [True, "no"]})
    FRAME.llm.filter("{text} is praise", examples=shots, model=model, **QUIET)
    request = engine.requests[0]
    assert isinstance(request, GenerateRequest)
    assert [turn.content for turn in request.messages or () if turn.role == "assistant"] == ["yes", "no"]


def test_an_empty_frame_stays_empty() -> None:
    pd.testing.assert_frame_equal(FRAME.iloc[:0].llm.filter("{text} is praise"), FRAME.iloc[:0])


@pytest.mark.parametrize(
    ("condition", "says"),
    [("is praise", r"write \{text\}"), (" ", "condition: is empty"), (None, "condition: must be a text")],
    ids=["no column", "empty", "nothing"],
)
def test_bad_input_is_one_line(condition: Any, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        FRAME.llm.filter(condition)
