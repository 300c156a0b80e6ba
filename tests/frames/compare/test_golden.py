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
