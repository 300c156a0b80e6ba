from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.frames.compare.matching import holds, is_expected, readings, written

_NOON = datetime(2024, 1, 1, 12, 30)
_ZONED = _NOON.replace(tzinfo=UTC)


def _is_expected(text: str, gold: object, parsed: object = None) -> bool:
    return is_expected({"response": text, "parsed": parsed}, gold)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        pytest.param(" Paris\n", "Paris ", id="text"),
        pytest.param("true", True, id="truth"),
        pytest.param("FALSE", np.False_, id="truth of numpy, without case"),
        pytest.param("1", 1.0, id="whole float"),
        pytest.param("1.0", 1, id="float for an int"),
        pytest.param("+1e0", np.int64(1), id="sign and exponent"),
        pytest.param("\u22122.50", -2.5, id="typographic minus"),
        pytest.param("1,000,000", 10**6, id="thousands"),
        pytest.param(".5", Decimal("0.50"), id="decimal"),
        pytest.param("0.1", 0.1, id="tenth"),
        pytest.param("12345678901234567890", 12345678901234567890, id="large"),
        pytest.param("2024-01-01", pd.Timestamp("2024-01-01"), id="timestamp"),
        pytest.param("2024-01-01", date(2024, 1, 1), id="date"),
        pytest.param("2024-01-01 00:00", date(2024, 1, 1), id="midnight"),
        pytest.param("2024-01-01T12:30:00", np.datetime64(_NOON), id="moment of numpy"),
        pytest.param("2024-01-01T12:30:00Z", _NOON, id="zone that nothing is known of"),
        pytest.param("2024-01-01T14:30+02:00", _ZONED, id="the same instant elsewhere"),
        pytest.param("2024-01-01 12:30", _ZONED, id="clock without a zone"),
        pytest.param('{"b": 1.0, "a": [1]}', {"a": (1,), "b": 1}, id="object"),
        pytest.param('["a",  "b"]', np.array(["a", "b"]), id="array"),
    ],
)
def test_an_answer_is_expected_by_its_value(text: str, gold: object) -> None:
    assert _is_expected(text, gold)
    assert holds(text, gold) or isinstance(gold, str)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        pytest.param("paris", "Paris", id="case of a text"),
        pytest.param("1.0", "1", id="text of a number"),
        pytest.param("1", True, id="number for a truth"),
        pytest.param("true", 1, id="truth for a number"),
        pytest.param("11", 1, id="longer number"),
        pytest.param("1 moon", 1, id="words beside it"),
        pytest.param("9007199254740993", 9007199254740992, id="nearly the same number"),
        pytest.param("nan", 1.0, id="no number"),
        pytest.param("2024-01-01 10:00", date(2024, 1, 1), id="time of the day"),
        pytest.param("2024-02-31", date(2024, 2, 29), id="no date"),
        pytest.param("0001-01-01T00:00+14:00", date(1, 1, 1), id="before all time"),
        pytest.param("2024-01-01T12:30+02:00", _ZONED, id="another instant"),
        pytest.param("[true]", [1], id="truth in a list"),
        pytest.param("[1, 2", [1, 2], id="no json"),
        pytest.param("[" * 100_000, [1], id="deep"),
    ],
)
def test_an_answer_of_another_value_is_not_expected(text: str, gold: object) -> None:
    assert not _is_expected(text, gold)


@pytest.mark.parametrize(
    ("text", "parsed", "gold"),
    [
        pytest.param('"Paris"', "Paris", "Paris", id="text"),
        pytest.param('"2024-01-01"', "2024-01-01", pd.Timestamp("2024-01-01"), id="date"),
        pytest.param("x", True, np.True_, id="truth"),
        pytest.param("x", True, "True", id="truth for a text"),
        pytest.param("x", 1, 1.0, id="int for a float"),
        pytest.param("x", 1.0, 1, id="float for an int"),
        pytest.param("x", np.array([1]), [1], id="list out of a file"),
    ],
)
def test_what_was_parsed_counts(text: str, parsed: Any, gold: object) -> None:
    assert _is_expected(text, gold, parsed)
    assert not _is_expected(text, gold, float("nan"))


@pytest.mark.parametrize(
    ("text", "gold", "is_held"),
    [
        pytest.param("It is Paris.", "Paris", True, id="text"),
        pytest.param("It has 1 moon.", 1.0, True, id="number"),
        pytest.param("It has 1.", 1, True, id="number at the end"),
        pytest.param("1-2", 2, True, id="range"),
        pytest.param("in 2011", 1, False, id="part of a number"),
        pytest.param("1,000 m", 1, False, id="part of thousands"),
        pytest.param("1,000 m", 1000, True, id="thousands"),
        pytest.param("H2O", 2, False, id="part of a word"),
        pytest.param("True, I say", True, True, id="truth"),
        pytest.param("untrue", True, False, id="part of a truth"),
        pytest.param("on 2024-01-01 at noon", date(2024, 1, 1), True, id="date"),
        pytest.param("2024-01-01 10:00", date(2024, 1, 1), True, id="date of a moment"),
        pytest.param("2024-01-01", _NOON, False, id="moment"),
        pytest.param("tags: [1, 2]", [1, 2], True, id="list"),
    ],
)
def test_a_text_holds_values_as_wholes(text: str, gold: object, is_held: bool) -> None:
    assert holds(text, gold) is is_held


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        (True, "true"), (1.0, "1"), (Decimal("2.00"), "2"), (0.5, "0.5"), (1e300, "1e+300"), (float("inf"), "inf"),
        (pd.Timestamp("2024-01-01"), "2024-01-01"), (_NOON, "2024-01-01 12:30:00"), (np.array([1]), "[1]"),
        ("1.0", "1.0"),
    ],
    ids=str,
)  # fmt: skip
def test_values_are_written_as_answers_would(gold: object, text: str) -> None:
    assert written(gold) == text


@given(
    st.one_of(
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False, allow_infinity=False),
        st.decimals(allow_nan=False, allow_infinity=False, places=3),
        st.text(),
        st.dates(),
        st.datetimes(),
        st.datetimes(
            datetime(2, 1, 1), datetime(9000, 1, 1), timezones=st.just(timezone(timedelta(hours=5, minutes=30)))
        ),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5).map(lambda x: [x]),
    )
)
def test_every_value_is_what_it_is_written_as(gold: object) -> None:
    assert _is_expected(written(gold), gold)
    assert holds(written(gold), gold)


@given(st.text('0123456789.,+-\u2212eE:TZ[]{}" ', max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    assert readings(text)[0] == ("text", text.strip())
    assert isinstance(holds(text, 1), bool)
    assert isinstance(holds(text, _NOON), bool)
