from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pytest

from nbllm.core import ChoiceRequest, GenerateRequest, Message
from nbllm.errors import ParameterError
from nbllm.session.model import Model
from tests.frames.verbs.replying import last_line, replying

QUIET: dict[str, Any] = {"cache": False, "progress": False}
FRAME = pd.DataFrame({"text": ["great", None, "awful"]}, index=[3, 3, 1])


def _by_text(prompt: str) -> str:
    return "good" if last_line(prompt) == "great" else "bad"


def test_label_is_constrained_text() -> None:
    model, engine = replying(_by_text)
    result = FRAME.llm.classify("text", ["good", "bad"], model=model, **QUIET)
    assert result["label"].fillna("-").tolist() == ["good", "-", "bad"]
    assert result["label"].dtype == "str"
    request = engine.requests[0]
    assert isinstance(request, GenerateRequest)
    assert request.constraint is not None
    assert json.loads(request.constraint.source) == ["good", "bad"]
    assert request.sampling.temperature == 0


def test_rows_share_all_but_their_text() -> None:
    model, engine = replying(_by_text)
    FRAME.llm.classify("text", {"good": "praise", "bad": "blame"}, model=model, **QUIET)
    beginnings = {prompt.removesuffix(last_line(prompt)) for prompt in engine.prompts}
    assert len(beginnings) == 1
    assert "- good: praise\n- bad: blame" in beginnings.pop()


def test_probabilities_are_normalised_over_the_labels() -> None:
    model, engine = replying(_by_text)
    result = FRAME.llm.classify("text", ["good", "bad"], proba=True, model=model, **QUIET)
    assert result.dtypes.astype(str).to_dict() == {
        "text": "str", "label": "str", "p_good": "float64", "p_bad": "float64",
    }  # fmt: skip
    assert result["label"].fillna("-").tolist() == ["good", "-", "bad"]
    likely = 1 / (1 + math.exp(-4.5))  # what the script says of the one it was given and of the others
    assert result["p_good"].iloc[0] == pytest.approx(likely)
    assert result["p_bad"].iloc[0] == pytest.approx(1 - likely)
    assert result.loc[3, "p_good"].isna().tolist() == [False, True]
    assert all(isinstance(request, ChoiceRequest) for request in engine.requests)


def test_second_question_of_the_same_labels_has_columns_of_its_own() -> None:
    model, _ = replying(_by_text)
    first = FRAME.llm.classify("text", ["good", "bad"], proba=True, model=model, **QUIET)
    result = first.llm.classify("text", ["good", "bad"], proba=True, into="again", model=model, **QUIET)
    assert list(result.columns) == ["text", "label", "p_good", "p_bad", "again", "again_p_good", "again_p_bad"]
    assert result["again_p_good"].equals(result["p_good"].rename("again_p_good"))


def test_column_that_is_given_itself_is_one_line() -> None:
    with pytest.raises(ParameterError) as caught:
        FRAME.llm.classify(FRAME["text"], ["good", "bad"])
    assert str(caught.value) == "col: must be a column's name, not a Series; write 'text'"
    with pytest.raises(ParameterError, match=r"^col: must be a column's name, not a list$"):
        FRAME.llm.classify(["text"], ["good", "bad"])


def test_constraint_that_is_none_leaves_the_verbs_own() -> None:
    model, engine = replying(_by_text)
    FRAME.llm.classify("text", ["good", "bad"], choice=None, model=model, **QUIET)
    request = engine.requests[0]
    assert isinstance(request, GenerateRequest)
    assert request.constraint is not None


def test_series_with_probabilities_is_a_frame() -> None:
    model, _ = replying(_by_text)
    result = FRAME["text"].llm.classify(["good", "bad"], proba=True, model=model, **QUIET)
    assert list(result.columns) == ["label", "p_good", "p_bad"]
    assert isinstance(FRAME["text"].llm.classify(["good", "bad"], model=model, **QUIET), pd.Series)


def test_multi_gives_lists_without_repetition() -> None:
    model, engine = replying(lambda prompt: '["bad", "good", "bad"]' if last_line(prompt) == "great" else "[]")
    shots = pd.DataFrame({"text": ["so so"], "label": [["good", "bad"]]})
    result = FRAME.llm.classify("text", ["good", "bad"], multi=True, examples=shots, model=model, **QUIET)
    assert result["label"].iloc[0] == ["bad", "good"]
    assert result["label"].iloc[2] == []
    assert pd.isna(result["label"].iloc[1])
    request = engine.requests[0]
    assert isinstance(request, GenerateRequest)
    assert (request.messages or ())[1] == Message("assistant", '["good", "bad"]')


def test_examples_of_probabilities_need_the_label_only() -> None:
    model, engine = replying(_by_text)
    shots = pd.DataFrame({"text": ["so so"], "label": ["bad"]})
    FRAME.llm.classify("text", ["good", "bad"], proba=True, examples=shots, model=model, **QUIET)
    request = engine.requests[0]
    assert isinstance(request, ChoiceRequest)
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]
    assert request.messages[1].content == "bad"


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        pytest.param("good", {}, "labels: must be a list", id="a text"),
        pytest.param(["good"], {}, "labels: must be a list", id="one"),
        pytest.param({"good", "bad"}, {}, "labels: a set's order differs", id="a set"),
        pytest.param(["good", 1], {}, "labels: must be a list .*; write '1' for 1, not", id="a number"),
        pytest.param(["good", "good"], {}, "labels: 'good' is there twice", id="twice"),
        pytest.param(["a", "b"], {"multi": True, "proba": True}, "proba: is of one label", id="multi and proba"),
        pytest.param(["a", "b"], {"choice": ["c"]}, "choice: this verb says itself", id="a constraint"),
        pytest.param(
            ["a", "b"], {"examples": pd.DataFrame({"text": ["x"], "label": ["c"]})}, "none of the labels", id="example"
        ),
    ],
)
def test_bad_input_is_one_line(labels: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError, match=says) as caught:
        FRAME.llm.classify("text", labels, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.model
def test_a_real_model_gives_every_row_a_label_and_its_probability(smollm2: Model) -> None:
    frame = pd.DataFrame({"text": ["I love it, wonderful!", "It broke at once, I hate it."]})
    labels = ["positive", "negative"]
    by_chance = frame.llm.classify("text", labels, proba=True, model=smollm2, **QUIET)
    assert by_chance[["p_positive", "p_negative"]].sum(axis=1).tolist() == pytest.approx([1, 1])
    assert by_chance["p_positive"].iloc[0] > by_chance["p_positive"].iloc[1]
    assert set(frame.llm.classify("text", labels, model=smollm2, **QUIET)["label"]) <= set(labels)
