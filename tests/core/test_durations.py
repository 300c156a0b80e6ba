"""What people and clients write for a length of time, read as Go reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.durations import FOREVER, parse_duration
from nbllm.errors import ParameterError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (300, 300.0),
        (1.5, 1.5),
        (-0.0, 0.0),
        ("0", 0.0),
        ("300", 300.0),
        (" 5m ", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("2.s", 2.0),
        ("100ms", 0.1),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("10ns", 1e-8),
        ("1m1m", 120.0),
        ("+5s", 5.0),
        ("-0s", 0.0),
        (-1, FOREVER),
        (-0.5, FOREVER),
        ("-1", FOREVER),
        ("-1m", FOREVER),
    ],
)
def test_parse_duration_gives_seconds(value: object, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [-2, "-7h", "-1m30s", 1e30, "999999999999h"])
def test_parse_duration_has_one_forever(value: object) -> None:
    assert parse_duration(value) == FOREVER


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        [],
        b"5m",
        float("nan"),
        float("inf"),
        10**400,
        "",
        "m",
        ".",
        "5 m",
        "5d",
        "5M",
        "1h-30m",
        "--1",
        "1e3",
        "inf",
        "nan",
        "٣s",
        "9" * 5000,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_parse_duration_of_something_else_says_what_is_allowed(value: object) -> None:
    with pytest.raises(ParameterError, match=r'^keep_alive: must be seconds or a text such as "5m"') as refusal:
        parse_duration(value)
    assert refusal.value.param == "keep_alive"
    assert len(str(refusal.value)) < 200


@given(st.text() | st.floats() | st.integers())
def test_parse_duration_is_seconds_or_a_refusal(value: object) -> None:
    try:
        seconds = parse_duration(value)
    except ParameterError:
        return
    assert seconds == FOREVER or seconds >= 0
