"""What shapes are understood, and what their values become in columns."""

from __future__ import annotations

import datetime
import enum
import json
from typing import Any, Literal

import jsonschema
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from nbllm.chat.schemas import unbounded
from nbllm.errors import ConstraintError
from nbllm.frames.dtypes import fitted, typed
from nbllm.frames.schemas import VALUE, Shape
from nbllm.session.requests import Options


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Place(BaseModel):
    city: str


class Node(BaseModel):
    name: str
    child: Node | None = None


class Person(BaseModel):
    name: str
    age: int | None
    mood: Mood
    size: float
    born: datetime.date
    seen: datetime.datetime
    home: Place
    tags: list[str]
    kind: Literal["a", "b"] = "a"
    either: int | str = 0


def shape(response_format: object) -> Shape:
    found = Shape.of(response_format)
    assert found is not None
    return found


@pytest.mark.parametrize("free", [None, "text", {"type": "text"}], ids=["None", "text", "OpenAI's text"])
def test_free_text_has_no_shape(free: object) -> None:
    assert Shape.of(free) is None


def test_fields_of_a_text_are_typed_columns() -> None:
    found = shape("name, age int, size float, ok bool, tags list[str], ids list[ int ], born date, seen datetime: when")
    assert dict(found.columns) == {
        "name": "str",
        "age": "Int64",
        "size": "Float64",
        "ok": "boolean",
        "tags": "object",
        "ids": "object",
        "born": "datetime64[us]",
        "seen": "datetime64[us, UTC]",
    }
    properties = unbounded(found.json_schema["properties"])
    assert properties["ids"] == {"type": "array", "items": {"type": "integer"}}
    assert properties["seen"] == {"type": "string", "format": "date-time", "description": "when"}
    assert found.json_schema["required"] == list(found.columns)
    assert found.has_fields


def test_fields_on_lines_may_have_commas_in_what_they_mean() -> None:
    found = shape("name: the full name, born date\nborn date: of birth, tags list[str]\ntags list[date]")
    assert list(found.columns) == ["name", "born", "tags"]
    properties = found.json_schema["properties"]
    assert properties["name"] == {"type": "string", "description": "the full name, born date"}
    assert properties["born"] == {"type": "string", "format": "date", "description": "of birth, tags list[str]"}
    assert properties["tags"]["items"] == {"type": "string", "format": "date"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("tags list[strng]", "list.strng.. of tags is not one of", id="a list of what"),
        pytest.param("age integer", "not one of", id="an unknown type"),
        pytest.param("a, a date", "there twice", id="the same name"),
        pytest.param("", "no field", id="nothing"),
        pytest.param('{"type": ', "not JSON", id="broken JSON"),
    ],
)
def test_text_that_is_no_schema_says_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(ConstraintError, match=problem):
        Shape.of(text)


def test_schema_that_cannot_be_guaranteed_is_refused_before_any_row() -> None:
    with pytest.raises(ConstraintError, match="not supported"):
        Shape.of({"type": "object", "properties": {"a": {"type": "string", "format": "no-such-format"}}})


def test_choices_are_one_column_of_text() -> None:
    found = shape(["yes", "no"])
    assert (found.choices, dict(found.columns), found.has_fields) == (("yes", "no"), {VALUE: "str"}, False)
    assert found.json_schema == {"type": "string", "enum": ["yes", "no"]}
    assert found.row("yes") == {VALUE: "yes"}


def test_pydantic_model_is_typed_through_its_definitions() -> None:
    assert dict(shape(Person).columns) == {
        "name": "str",
        "age": "Int64",
        "mood": "str",
        "size": "Float64",
        "born": "datetime64[us]",
        "seen": "datetime64[us, UTC]",
        "home": "object",
        "tags": "object",
        "kind": "str",
        "either": "object",
    }


@pytest.mark.parametrize(
    ("response_format", "dtype"),
    [
        pytest.param({"type": "integer"}, "Int64", id="a number"),
        pytest.param({"type": ["number", "null"]}, "Float64", id="or null"),
        pytest.param({"type": ["number", "integer"]}, "Float64", id="two kinds of number"),
        pytest.param({"enum": [1, 2.5]}, "Float64", id="numbers to choose from"),
        pytest.param({"enum": ["a", 1]}, "object", id="a mixture"),
        pytest.param({"const": True}, "boolean", id="one value"),
        pytest.param({"type": "array", "items": {"type": "integer"}}, "object", id="a list"),
        pytest.param(bool, "boolean", id="a Python type"),
        pytest.param("json_object", "object", id="any object"),
        pytest.param({"type": "null"}, "object", id="only null"),
        pytest.param({"allOf": [{"type": "integer"}]}, "Int64", id="all of one"),
    ],
)
def test_answer_without_fields_is_one_column(response_format: object, dtype: str) -> None:
    assert dict(shape(response_format).columns) == {VALUE: dtype}


def test_model_that_holds_itself_has_fields() -> None:
    found = shape(Node)
    assert (dict(found.columns), found.has_fields) == ({"name": "str", "child": "object"}, True)
    assert list(found.fields) == ["name", "child"]


def test_field_that_may_be_missing_keeps_its_type() -> None:
    found = shape("age int?, born: date | None, tags list[str]?")
    assert dict(found.columns) == {"age": "Int64", "born": "datetime64[us]", "tags": "object"}
    assert found.misfit({"age": None, "born": None, "tags": None}) is None


@pytest.mark.parametrize(
    ("response_format", "parsed", "problem"),
    [
        pytest.param(
            {"type": "integer"}, 2**63, "9223372036854775808 does not fit into a column of Int64", id="integer"
        ),
        pytest.param("a", [1], "[1] is no object with fields", id="no object"),
        pytest.param({"type": "string", "format": "date"}, "x" * 99, "x... does not fit", id="long"),
    ],
)
def test_misfit_says_what_and_where_to(response_format: object, parsed: object, problem: str) -> None:
    assert problem in (shape(response_format).misfit(parsed) or "")


def test_openais_form_is_looked_into() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    found = shape({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert dict(found.columns) == {"a": "Int64"}
    assert found.json_schema == schema


@pytest.mark.parametrize("response_format", ["a int", ["x", "y"], Person, bool, {"type": "integer"}], ids=repr)
def test_options_ask_a_model_for_the_same_shape(response_format: object) -> None:
    found = shape(response_format)
    assert Options.of(found.options).constraint == found.constraint


_EVERY = "t, i int, f float, b bool, l list[int], d date, m datetime"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("t", "a", "a"),
        ("t", 5, None),
        ("t", "\ud800x", "�x"),
        ("i", 5, 5),
        ("i", 5.0, 5),
        ("i", 5.5, None),
        ("i", True, None),
        ("i", 2**63, None),
        ("i", "5", None),
        ("f", 5, 5.0),
        ("f", 10**400, None),
        ("f", float("inf"), None),
        ("f", False, None),
        ("b", True, True),
        ("b", 1, None),
        ("l", [1, 2], [1, 2]),
        ("d", "2026-03-01", datetime.datetime(2026, 3, 1)),
        ("d", "2026-02-30", None),
        ("m", "2026-03-01T10:00:00+02:00", datetime.datetime(2026, 3, 1, 8, tzinfo=datetime.UTC)),
        ("m", "2026-03-01T10:00:00Z", datetime.datetime(2026, 3, 1, 10, tzinfo=datetime.UTC)),
        ("m", "0001-01-01T00:00:00+02:00", None),
        ("m", 5, None),
        ("t", None, None),
    ],
)
def test_value_that_does_not_fit_is_missing(name: str, value: object, expected: object) -> None:
    row = shape(_EVERY).row({name: value})
    assert (row[name], type(row[name])) == (expected, type(expected))
    problem = shape(_EVERY).misfit({name: value})
    if value is None or expected is not None:
        assert problem is None
    else:
        assert problem is not None
        assert problem.startswith(f"{name}: ")
        assert shape(_EVERY).columns[name] in problem
        assert len(problem) < 150
    assert list(row) == list(shape(_EVERY).columns)


def frame_of(found: Shape, parsed: list[Any], index: pd.Index[Any] | None = None) -> pd.DataFrame:
    """Answers as typed columns, as `extract` makes them."""
    rows = [list(found.row(value).values()) for value in parsed]
    return typed(rows, found.columns, pd.RangeIndex(len(rows)) if index is None else index)


def test_frame_has_the_dtypes_whatever_is_missing() -> None:
    found = shape(_EVERY)
    whole = {"t": "a", "i": 1, "f": 1, "b": True, "l": [1], "d": "2026-03-01", "m": "2026-03-01T10:00:00Z"}
    index = pd.Index(["x", "x", "y"])
    for parsed in ([whole, None, {}], [None, None, None]):
        frame = frame_of(found, parsed, index)
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(found.columns)
        assert list(frame.index) == list(index)
        assert frame.iloc[1:].isna().all(axis=None)
    assert frame_of(found, [whole]).loc[0, "l"] == [1]
    assert frame_of(found, []).dtypes.astype(str).to_dict() == dict(found.columns)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=3
)


@settings(max_examples=40)
@given(st.lists(st.none() | st.dictionaries(st.sampled_from(list("tifbldm")), _JSON), max_size=4))
def test_any_json_makes_a_frame(parsed: list[dict[str, Any] | None]) -> None:
    frame = frame_of(shape(_EVERY), parsed)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(shape(_EVERY).columns)


@given(st.datetimes() | st.datetimes(timezones=st.just(datetime.UTC)), st.dates())
def test_times_come_back_as_they_were_said(moment: datetime.datetime, day: datetime.date) -> None:
    assert fitted(moment.isoformat(), "datetime64[us, UTC]") == moment.replace(tzinfo=datetime.UTC)
    assert fitted(day.isoformat(), "datetime64[us]").date() == day


def test_schema_of_a_text_is_one_that_others_read() -> None:
    answer = {"name": "Ada", "tags": ["x"], "born": "1815-12-10"}
    jsonschema.validate(answer, shape("name, tags list[str], born date").json_schema)
    assert json.loads(shape("name").constraint.source)["additionalProperties"] is False
