from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import nbllm
from nbllm.errors import ParameterError
from nbllm.frames.compare.golden import OTHER, agreement, confusion
from nbllm.frames.compare.summary import summary
from tests.frames.compare.talking import asked, talking

_DATA = [{"text": text, "label": label} for text, label in zip("abcde", ["p", "p", "n", "n", None], strict=True)]
_SAID = {"a": " p\n", "b": "n", "c": "n", "d": "neither", "e": "p"}


def _frame(*names: str, **options: Any) -> Any:
    models = [talking(name, lambda request: _SAID[asked(request)]) for name in names]
    return nbllm.compare("{text}", models, data=_DATA, expected="label", cache=False, **options)


def test_confusion_counts_each_expected_answer() -> None:
    table = confusion(_frame("m"))
    assert table.loc["p"].to_dict() == {"n": 1, "p": 1, OTHER: 0}
    assert table.loc["n"].to_dict() == {"n": 1, "p": 0, OTHER: 1}
    assert table.index.name == "expected"


def test_confusion_of_several_models_has_one_part_each() -> None:
    table = confusion(_frame("m", "k"))
    assert table.index.tolist() == [("m", "n"), ("m", "p"), ("k", "n"), ("k", "p")]


def test_agreement_is_that_of_the_textbook() -> None:
    row = agreement(_frame("m")).loc["m"]
    assert row["accuracy"] == pytest.approx(0.5)
    assert row["f1"] == pytest.approx((2 * 1 / (2 + 2) + 2 * 1 / (2 + 1)) / 2)


def test_summary_has_accuracy_when_answers_were_expected() -> None:
    table = summary(_frame("m", "k"))
    assert table["accuracy"].tolist() == [0.5, 0.5]


def _answered(said: list[str], gold: Any, **options: Any) -> pd.DataFrame:
    data = pd.DataFrame({"text": said, "gold": gold})
    models = talking("m", asked)
    frame: pd.DataFrame = nbllm.compare("{text}", models, data=data, expected="gold", cache=False, **options)
    return frame


@pytest.mark.parametrize(
    ("said", "gold", "labels"),
    [
        pytest.param(["false", "true", "true"], [False, True, True], ["false", "true"], id="truths"),
        pytest.param(["True", "True", "False"], [True, True, False], ["False", "True"], id="truths as Python says"),
        pytest.param(["0", "1", "2"], [0, 1, None], ["0", "1"], id="numbers with a gap"),
        pytest.param(["1.0", "1.0", "2"], [1, 1, 2], ["1.0", "2"], id="numbers as answers write them"),
        pytest.param(["2024-01-01"], pd.to_datetime(["2024-01-01"]), ["2024-01-01"], id="dates"),
    ],
)
def test_typed_answers_are_right_by_value(said: list[str], gold: Any, labels: list[str]) -> None:
    frame = _answered(said, gold, scorers="equals")
    assert frame["score_equals"].dropna().eq(1).all()
    assert agreement(frame)["accuracy"].tolist() == [1]
    assert agreement(frame)["f1"].tolist() == [1]
    table = confusion(frame)
    assert table.index.tolist() == table.columns.tolist() == labels


def test_a_typed_answer_that_is_wrong_is_taken_for_the_one_it_is() -> None:
    table = confusion(_answered(["2.0", "1", "what?"], [1.0, 1.0, 2.0]))
    assert table.loc["1"].to_dict() == {"1": 1, "2.0": 1, OTHER: 0}
    assert table.loc["2.0"].to_dict() == {"1": 0, "2.0": 0, OTHER: 1}


def test_labels_that_answers_write_alike_stay_apart() -> None:
    """The text True and the truth are both expected, and the answer to the latter is the text."""
    table = confusion(_answered(["True", "True"], pd.Series([True, "True"], dtype=object)))
    assert table.index.tolist() == table.columns.tolist() == ["True", "true"]
    assert (table.loc["True", "True"], table.loc["true", "true"]) == (1, 1)


def test_what_an_answer_was_parsed_to_counts() -> None:
    frame = _answered(['"p"'], ["p"]).assign(parsed=["p"])
    assert agreement(frame)["accuracy"].tolist() == [1]
    assert confusion(frame).index.tolist() == ["p"]
    assert agreement(frame.drop(columns="parsed"))["accuracy"].tolist() == [0]


def test_nothing_expected_is_told() -> None:
    frame = nbllm.compare("hi", talking("m"), cache=False)
    with pytest.raises(ParameterError, match="nothing was expected"):
        confusion(frame)
    with pytest.raises(ParameterError, match="no column 'gold'"):
        confusion(frame, expected="gold")


def test_a_column_of_one_s_own_may_be_expected() -> None:
    frame = nbllm.compare(["x", "y"], talking("m", asked), cache=False).assign(gold=["x", "x"])
    assert agreement(frame, expected="gold")["accuracy"].tolist() == [0.5]
    assert isinstance(confusion(frame, "gold"), pd.DataFrame)
