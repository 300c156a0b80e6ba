"""Whether an answer is the expected one: by value, for a table's values have types, and answers are text.

    expected                       answers that are it
    "Paris"                        Paris: texts are compared as they are, but for the white space around them
    True                           true, True, TRUE
    1, 1.0                         1, 1.0, +1, 1e0; of 1000 also 1,000
    2024-01-01 or its midnight     2024-01-01, 2024-01-01 00:00; a time zone counts where both have one
    [1, 2], {"a": 1}               the same as JSON, however it is laid out
    None, NaN, NaT, NA             nothing is expected: such a row has no score

What an answer was parsed to counts like its text, so that `"Paris"` with its quotes, asked for as JSON, is Paris.
A column of texts stays texts: "1.0" there is not 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from nbllm.frames.templates import is_null, shown

Key = tuple[str, Hashable]
"""A kind and a value of it. An answer and what was expected are the same when they have one in common."""
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])[-+\u2212]?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,400})(?![0-9])(?:\.[0-9]{0,400}(?![0-9]))?|\.[0-9]{1,400}(?![0-9]))"
    r"(?:[eE][-+]?[0-9]{1,4}(?![0-9]))?"
)
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[-+][0-9]{2}:?[0-9]{2})?)?"
)
_DATE_LENGTH = 10
_MOST_DIGITS = 1e16
"""From here on not every whole number is a float."""


def is_expected(answer: Mapping[str, Any], gold: object) -> bool:
    """Whether a row's response, or what it was parsed to, has the value that was expected."""
    return not set(meanings(gold)).isdisjoint(readings(answer["response"], answer.get("parsed")))


def holds(text: str, gold: object) -> bool:
    """Whether the expected value is somewhere in the text: texts letter by letter, truths as words, numbers and dates
    as wholes, so that 2011 does not hold 1."""
    value = _plain(gold)
    if isinstance(value, str):
        return value in text
    if isinstance(value, bool):
        return re.search(rf"\b{value}\b", text, re.IGNORECASE) is not None
    wanted = set(meanings(value))
    if isinstance(value, int | float | Decimal):
        return any(not wanted.isdisjoint(_of_number(found[0])) for found in _NUMBER.finditer(text))
    if isinstance(value, date):
        moments = (found[0] for found in _MOMENT.finditer(text))
        return any(not wanted.isdisjoint((*_of_moment(one), *_of_moment(one[:_DATE_LENGTH]))) for one in moments)
    return written(value) in text or not wanted.isdisjoint(readings(text))


def written(gold: object) -> str:
    """An expected value as an answer would say it: `1` for 1.0, `true`, `2024-01-01` for its midnight."""
    value: Any = _plain(gold)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal) and abs(float(value)) < _MOST_DIGITS and value == int(value):
        return str(int(value))
    if isinstance(value, datetime) and value == datetime(value.year, value.month, value.day):
        return value.date().isoformat()
    return shown(value)


def meanings(gold: object) -> tuple[Key, ...]:
    """What an answer must be read as to be the expected one."""
    value = _plain(gold)
    if isinstance(value, bool):
        return (("truth", value),)
    if isinstance(value, float):
        return (("float", value),)
    if isinstance(value, int | Decimal):
        return (("number", value),)
    if isinstance(value, datetime):
        return _of_expected_moment(value)
    if isinstance(value, date):
        return _of_expected_moment(datetime(value.year, value.month, value.day))
    if isinstance(value, Mapping | list | tuple):
        return (("json", _frozen(value)),)
    return (("text", str(value).strip()),)


def readings(text: str, parsed: object = None) -> tuple[Key, ...]:
    """All that an answer may mean, what it says letter by letter first."""
    keys = tuple(_of_text(text))
    if is_null(parsed):
        return keys
    return (*keys, *_of_text(parsed)) if isinstance(parsed, str) else (*keys, *_of_parsed(parsed))


def _of_text(text: str) -> Iterator[Key]:
    text = text.strip()
    yield "text", text
    if text.lower() in ("true", "false"):
        yield "truth", text.lower() == "true"
    if _NUMBER.fullmatch(text):
        yield from _of_number(text)
    if _MOMENT.fullmatch(text):
        yield from _of_moment(text)
    if text.startswith(("{", "[")):
        try:
            yield "json", _frozen(json.loads(text))
        except (ValueError, RecursionError):
            return


def _of_number(text: str) -> Iterator[Key]:
    plain = text.replace(",", "").replace("\u2212", "-")
    yield "number", Decimal(plain)
    yield "float", float(plain)


def _of_moment(text: str) -> Iterator[Key]:
    """With a zone it is that instant, and for what has none the time that its own clocks show."""
    try:
        moment = datetime.fromisoformat(text)
        known = ("clock of any zone", moment) if moment.tzinfo is None else ("instant", moment.astimezone(UTC))
    except (ValueError, OverflowError):  # such as the 31st of February
        return
    yield "clock", moment.replace(tzinfo=None)
    yield known


def _of_expected_moment(moment: datetime) -> tuple[Key, ...]:
    if moment.tzinfo is None:
        return (("clock", moment),)
    return ("instant", moment.astimezone(UTC)), ("clock of any zone", moment.replace(tzinfo=None))


def _of_parsed(parsed: object) -> Iterator[Key]:
    value = _plain(parsed)
    yield from meanings(value)
    if isinstance(value, bool):
        yield "text", str(value)
        yield "text", str(value).lower()
    elif isinstance(value, int | float):
        yield "text", str(value)
        yield from _of_number(repr(value))


def _plain(value: Any) -> Any:
    """Of numpy and pandas what is Python's own."""
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime(warn=False)
    if type(value).__name__ == "datetime64":
        return value.astype("datetime64[us]").item()
    return value.tolist() if hasattr(value, "tolist") and hasattr(value, "dtype") else value


def _frozen(value: Any) -> Hashable:
    """A value of JSON as what can be compared with another: 1 is 1.0 there, and true is not 1."""
    value = _plain(value)
    if isinstance(value, Mapping):
        return frozenset((str(name), _frozen(part)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    if isinstance(value, bool):
        return "truth", value
    return value if value is None or isinstance(value, str | int | float) else written(value)
