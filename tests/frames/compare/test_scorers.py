from __future__ import annotations

import importlib
import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nbllm
from nbllm.errors import ParameterError, UnsupportedError
from nbllm.frames.compare.scorers import scored, scorers_of
from tests.frames.compare.talking import talking

_CASES = [
    pytest.param("equals", " Paris\n", "Paris", 1.0, id="equals"),
    pytest.param("equals", "paris", "Paris", 0.0, id="equals is exact"),
    pytest.param("equals", "7", 7, 1.0, id="equals a number"),
    pytest.param("contains", "It is Paris.", "Paris", 1.0, id="contains"),
    pytest.param("equals", "true", True, 1.0, id="equals a truth"),
    pytest.param("equals", "1", 1.0, 1.0, id="equals a float"),
    pytest.param(("equals", 1), "1.0", None, 1.0, id="equals its argument"),
    pytest.param("contains", "It has 1 moon.", 1.0, 1.0, id="contains a number"),
    pytest.param("levenshtein", "true", np.True_, 1.0, id="levenshtein of a truth"),
    pytest.param("rouge", "2024-01-01", pd.Timestamp("2024-01-01"), 1.0, id="rouge of a date"),
    pytest.param(("contains", "Rome"), "It is Paris.", "Paris", 0.0, id="contains its argument"),
    pytest.param(("regex", r"^\d{4}$"), "1999", None, 1.0, id="regex"),
    pytest.param(("regex", r"\d{4}"), "99", None, 0.0, id="regex does not match"),
    pytest.param("is_json", '{"a": 1}', None, 1.0, id="json"),
    pytest.param("is_json", "{'a': 1}", None, 0.0, id="no json"),
    pytest.param(("json_schema", {"type": "object", "required": ["a"]}), '{"a": 1}', None, 1.0, id="schema"),
    pytest.param(("json_schema", {"not": {"type": "object"}}), '{"a": 1}', None, 0.0, id="schema that forbids"),
    pytest.param(("json_schema", "name, age int"), '{"name": "a", "age": "b"}', None, 0.0, id="schema of fields"),
    pytest.param(("json_schema", {}), "{", None, 0.0, id="schema of no json"),
    pytest.param("levenshtein", "kitten", "sitting", 1 - 3 / 7, id="levenshtein"),
    pytest.param("rouge", "the cat sat", "the cat ran", 2 / 3, id="rouge"),
    pytest.param("rouge1", "sat cat the", "the cat ran", 2 / 3, id="rouge1"),
    pytest.param("rouge2", "the cat sat", "the cat ran", 1 / 2, id="rouge2"),
    pytest.param("rougeL", "cat the", "the cat", 1 / 2, id="rougeL"),
    pytest.param("length", "four", None, 4.0, id="length"),
    pytest.param("latency", "x", None, 0.25, id="latency"),
    pytest.param(lambda text: len(text) > 1, "xy", None, 1.0, id="function of the text"),
    pytest.param(lambda text, row: row["duration_ms"] / 50, "xy", None, 5.0, id="function of the row"),
    pytest.param(lambda text, weight=2: weight, "xy", None, 2.0, id="function with a default"),
    pytest.param(len, "xyz", None, 3.0, id="built-in"),
]


def _frame(*responses: str | None) -> pd.DataFrame:
    return pd.DataFrame({"response": pd.Series(responses, dtype="str"), "duration_ms": 250.0, "passed": pd.NA}).astype(
        {"passed": "boolean"}
    )


@pytest.mark.parametrize(("spec", "text", "gold", "score"), _CASES)
def test_score_of_one_answer(spec: Any, text: str, gold: Any, score: float) -> None:
    scorers = scorers_of({"it": spec}, has_expected=gold is not None)
    frame = scored(_frame(text, None), scorers, [gold, gold])
    assert frame["score_it"][0] == pytest.approx(score)
    assert pd.isna(frame["score_it"][1])


def test_rows_pass_when_every_truth_is_one() -> None:
    wanted = {"digits": ("regex", r"\d"), "short": lambda text: len(text) < 3, "length": "length"}
    scorers = scorers_of(wanted, has_expected=False)
    frame = scored(_frame("1", "12345", "a", None), scorers, [None] * 4)
    assert frame["passed"].tolist() == [True, False, False, pd.NA]
    assert [*frame.columns][-4:] == ["score_digits", "score_short", "score_length", "passed"]


def test_a_function_that_raises_leaves_its_rows_without_a_score(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "nbllm"):
        frame = scored(_frame("1", "x", "y"), scorers_of({"number": float}, has_expected=False), [None] * 3)
    assert frame["score_number"].isna().tolist() == [False, True, True]
    assert "ValueError" in caplog.text
    assert "2 rows" in caplog.text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        pytest.param("q", "row['var_q']", id="column of the data"),
        pytest.param("responce", "did you mean row['response']?", id="near miss"),
    ],
)
def test_a_key_that_a_row_lacks_gets_a_hint(name: str, hint: str, caplog: pytest.LogCaptureFixture) -> None:
    frame = _frame("a").assign(var_q="x")
    scored(frame, scorers_of({"it": lambda text, row: len(row[name])}, has_expected=False), [None])
    assert hint in caplog.text


def test_a_key_of_another_dict_gets_no_hint(caplog: pytest.LogCaptureFixture) -> None:
    frame = _frame("a")
    scored(frame, scorers_of({"it": lambda text, row: dict[str, int]()["response"]}, has_expected=False), [None])
    assert "did you mean" not in caplog.text


def test_what_is_no_score_is_told(caplog: pytest.LogCaptureFixture) -> None:
    frame = scored(_frame("a"), scorers_of({"words": str.split}, has_expected=False), [None])
    assert frame["score_words"].isna().all()
    assert "['a']" in caplog.text


def test_names_of_columns_come_from_what_was_given() -> None:
    def polite(text: str) -> bool:
        return "please" in text

    scorers = scorers_of(["is_json", ("contains", "x"), polite], has_expected=False)
    assert [scorer.column for scorer in scorers] == ["score_is_json", "score_contains", "score_polite"]


def test_a_function_of_three_is_refused() -> None:
    with pytest.raises(ParameterError, match="text and the row"):
        scorers_of(lambda a, b, c: 1, has_expected=False)


def test_no_schema_is_fetched(caplog: pytest.LogCaptureFixture) -> None:
    scorers = scorers_of({"it": ("json_schema", {"$ref": "http://127.0.0.1:1/schema"})}, has_expected=False)
    assert scored(_frame("1"), scorers, [None])["score_it"].isna().all()
    assert "127.0.0.1" in caplog.text


def test_a_broken_schema_is_told_at_once() -> None:
    with pytest.raises(ParameterError, match="json_schema"):
        scorers_of(("json_schema", {"type": "objekt"}), has_expected=False)


@pytest.mark.parametrize("name", ["levenshtein", "rouge"])
def test_a_library_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, package: str | None = None) -> Any:
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UnsupportedError, match=r'pip install "nbllm\[score\]"'):
        scorers_of((name, "x"), has_expected=False)


def test_similarity_is_the_cosine_of_the_last_model() -> None:
    frame = nbllm.compare(
        ["same", "other"], [talking("a", lambda request: "same")], scorers="similarity", expected=["same", "x"],
        cache=False,
    )  # fmt: skip
    assert frame["score_similarity"][0] == pytest.approx(1, abs=1e-6)
    assert -1 <= frame["score_similarity"][1] < 0.99
    assert frame["var_expected"].tolist() == ["same", "x"]
