from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.chat import constraints
from nbllm.chat.schemas import INTEGER, bounded, schema_from_text, unbounded
from nbllm.errors import ConstraintError

STRING, NUMBER, BOOLEAN = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
DATE, MOMENT = {"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}
KINDS = {
    "": STRING, "str": STRING, "int": INTEGER, "float": NUMBER, "bool": BOOLEAN, "date": DATE, "datetime": MOMENT,
    "list[int]": {"type": "array", "items": INTEGER}, "list[ date ]": {"type": "array", "items": DATE},
    "int?": {**INTEGER, "type": ["integer", "null"]}, "date | None": {**DATE, "type": ["string", "null"]},
    "list[str]?": {"type": ["array", "null"], "items": STRING},
}  # fmt: skip


def an_object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        pytest.param("name", an_object(name=STRING), id="one field"),
        pytest.param(
            "name, age int, bio: one line",
            an_object(name=STRING, age=INTEGER, bio=STRING | {"description": "one line"}),
            id="commas",
        ),
        pytest.param(
            "name: first, then last\nage int : in years: whole ones\n\n  tall bool\n",
            an_object(
                name=STRING | {"description": "first, then last"},
                age={**INTEGER, "description": "in years: whole ones"},
                tall={"type": "boolean"},
            ),
            id="lines",
        ),
        pytest.param("name,\nage int,\n", an_object(name=STRING, age=INTEGER), id="lines with commas"),
        pytest.param("\nname, age int\n", an_object(name=STRING, age=INTEGER), id="one line"),
        pytest.param("a,,b str,", an_object(a=STRING, b=STRING), id="commas too many"),
        pytest.param("naïve-name float:", an_object(**{"naïve-name": {"type": "number"}}), id="empty description"),
        pytest.param("name: str, age:int", an_object(name=STRING, age=INTEGER), id="as Python has it"),
        pytest.param(
            "a: list[ str ]\nb: int | None\nc: date?",
            an_object(a={"type": "array", "items": STRING}, b=KINDS["int?"], c=KINDS["date | None"]),
            id="as Python has it, on lines",
        ),
        pytest.param(
            "age: int of years, size int: float",
            an_object(age=STRING | {"description": "int of years"}, size={**INTEGER, "description": "float"}),
            id="a description that has a type in it",
        ),
        pytest.param("name:\tof  it\r\nage", an_object(name=STRING | {"description": "of it"}, age=STRING), id="CRLF"),
    ],
)
def test_fields_become_an_object(text: str, schema: dict[str, Any]) -> None:
    assert schema_from_text(text) == schema


def test_fields_keep_their_order() -> None:
    schema = schema_from_text("zebra, ant, moose")
    assert list(schema["properties"]) == schema["required"] == ["zebra", "ant", "moose"]


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "array", "items": {"type": "string"}}, id="list"),
        pytest.param({"type": ["string", "null"]}, id="types"),
        pytest.param({"enum": [1, 2]}, id="no type"),
    ],
)
def test_json_object_is_the_schema_itself(schema: dict[str, Any]) -> None:
    assert schema_from_text(f"\n {json.dumps(schema, indent=2)}") == schema


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "'name, age int, bio: one line'", id="empty"),
        pytest.param(" ,\n, ", "'name, age int, bio: one line'", id="only commas"),
        pytest.param("name, age number", "'number' of age is not one of str, int, float, bool", id="unknown type"),
        pytest.param("tags list[strng]", "list[...] of one of them", id="list of what"),
        pytest.param("kind a|b", "for choices and objects give a JSON Schema", id="choices"),
        pytest.param("age integer?", "date, datetime", id="optional of what"),
        pytest.param("age \0int", r"'\x00int'", id="control character"),
        pytest.param("first name of them", "'first name of them' is not a field", id="prose"),
        pytest.param("first name of them: all", "is not a field", id="too many words"),
        pytest.param(": a description", "': a description' is not a field", id="no name"),
        pytest.param("a, b: what, c d e f", "'c d e f' is not a field", id="comma in a description"),
        pytest.param("a\nb, c", "'b, c' is not a field", id="lines and commas"),
        pytest.param("name, name int", "name is there twice", id="twice"),
        pytest.param("[1, 2]", "is not a field", id="JSON list"),
        pytest.param('"name"', "is not a field", id="JSON text"),
        pytest.param("{'type': 'object'}", "not JSON", id="Python dict"),
        pytest.param('{"type": "object"} {}', "not JSON", id="more after the object"),
        pytest.param('{"a":' * 100_000, "nested too deeply", id="deep"),
        pytest.param('{"type": "text"}', "not 'text'", id="a format that is no schema"),
        pytest.param('{"type": "json_schema", "json_schema": {}}', "not 'json_schema'", id="OpenAI's envelope"),
        pytest.param('{"type": {"a": 1}}', "'type' is one of", id="type is an object"),
        pytest.param('{"type": 1}', "not 1", id="type is a number"),
    ],
)
def test_anything_else_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConstraintError) as raised:
        schema_from_text(text)
    assert says in str(raised.value)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400


NAMES = st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.sampled_from(sorted(KINDS))), min_size=1, unique_by=lambda field: field[0]))
def test_fields_are_what_was_written(fields: list[tuple[str, str]]) -> None:
    written = [f"{name} {kind}".strip() for name, kind in fields]
    expected = {name: KINDS[kind] for name, kind in fields}
    assert schema_from_text(", ".join(written))["properties"] == expected
    assert schema_from_text("\n".join(written))["properties"] == expected
    in_python = [f"{name}: {kind}" for name, kind in fields]
    assert schema_from_text(", ".join(in_python))["properties"] == expected


@given(st.text(alphabet=st.sampled_from("ab ,:\n{}[]\"'int\u2028\0é-")))
def test_any_text_is_a_schema_or_one_line(text: str) -> None:
    try:
        outcome = json.dumps(schema_from_text(text))
    except ConstraintError as exc:
        outcome = str(exc)
    assert outcome.isprintable()


def test_fields_can_be_enforced() -> None:
    constraint = constraints.from_response_format(schema_from_text("name: who, age int, ok bool, share float"))
    assert constraint is not None
    assert constraints.grammar(constraint)


@pytest.mark.parametrize(
    ("schema", "most"),
    [
        pytest.param({"type": "integer"}, INTEGER, id="free"),
        pytest.param({"type": "integer", "minimum": 0}, {**INTEGER, "minimum": 0}, id="half free"),
        pytest.param({"type": "integer", "exclusiveMaximum": 5, "minimum": 0}, None, id="bounded"),
        pytest.param({"type": "integer", "minimum": 10**20}, None, id="beyond"),
        pytest.param({"type": "integer", "enum": [1, 2]}, None, id="choices"),
        pytest.param({"type": "number"}, None, id="a fraction"),
    ],
)
def test_integers_of_a_python_type_have_an_end(schema: dict[str, Any], most: dict[str, Any] | None) -> None:
    found = bounded(schema)
    assert found == (schema if most is None else most)
    assert unbounded({"properties": {"a": [found]}}) == {"properties": {"a": [schema]}}
