"""Whatever comes in, a request comes out or one line that says what is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.errors import InvalidRequestError
from nbllm.wire.openai.chat import parse_chat
from nbllm.wire.openai.completions import parse_completion
from nbllm.wire.openai.embeddings import parse_embeddings
from nbllm.wire.openai.shapes import Kind, json_schema
from nbllm.wire.openai.tokens import parse_detokenize, parse_tokenize

PARSERS: dict[Kind, Callable[[bytes], Any]] = {
    "chat": parse_chat,
    "completion": parse_completion,
    "embeddings": parse_embeddings,
    "tokenize": parse_tokenize,
    "detokenize": parse_detokenize,
}
_SMALLEST: dict[Kind, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "completion": {"model": "m", "prompt": "hi"},
    "embeddings": {"model": "m", "input": "hi"},
    "tokenize": {"model": "m", "content": "hi"},
    "detokenize": {"model": "m", "tokens": [1]},
}
_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([10**400, -(2**64)])
_LEAVES = st.none() | st.booleans() | _NUMBERS | st.text(max_size=4)
_ANYTHING = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def of_schema(schema: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that mostly follow a schema of msgspec's, whose words are few."""
    if "$ref" in schema:
        return of_schema(parts[schema["$ref"].rpartition("/")[2]], parts)
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | _LEAVES
    if "anyOf" in schema:
        return st.one_of([of_schema(one, parts) for one in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        fields = {name: of_schema(field, parts) | _LEAVES for name, field in schema["properties"].items()}
        needed = {name: of_schema(schema["properties"][name], parts) for name in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional={name: fields[name] for name in fields if name not in needed})
    if kind == "array":
        return st.lists(of_schema(schema.get("items", {}), parts), max_size=3)
    return _OF_TYPE.get(str(kind), _ANYTHING)


_OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=6),
    "integer": st.integers(-2, 30) | st.integers(),
    "number": st.floats(0, 2) | _NUMBERS,
    "boolean": st.booleans(),
    "null": st.none(),
    "object": st.dictionaries(st.text(max_size=3), _ANYTHING, max_size=3),
}


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()  # which writes integers of any length, and half surrogates too


def check(parse: Callable[[bytes], Any], body: bytes) -> None:
    message = ""
    try:
        parse(body)
    except InvalidRequestError as exc:
        message = str(exc)
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("kind", get_args(Kind))
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_bodies_near_the_schema_parse_or_are_one_line(kind: Kind, data: st.DataObject) -> None:
    schema = json_schema(kind)
    check(PARSERS[kind], dumped(data.draw(of_schema(schema, schema["$defs"]))))


@pytest.mark.parametrize("kind", get_args(Kind))
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_one_wrong_field_parses_or_is_one_line(kind: Kind, data: st.DataObject) -> None:
    schema = json_schema(kind)
    names = list(schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"])
    body = _SMALLEST[kind] | {data.draw(st.sampled_from(names)): data.draw(_ANYTHING)}
    check(PARSERS[kind], dumped(body))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_schema_is_one_and_accepts_the_smallest_body(kind: Kind) -> None:
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(_SMALLEST[kind], schema)
    PARSERS[kind](msgspec.json.encode(_SMALLEST[kind]))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(_SMALLEST[kind] | {"model": 3}, schema)


def test_schema_has_the_ranges_of_core() -> None:
    temperature = json_schema("chat")["$defs"]["ChatBody"]["properties"]["temperature"]
    assert (temperature["minimum"], temperature["maximum"]) == (0.0, 100.0)


def test_import_loads_nothing_costly() -> None:
    script = "import sys, nbllm.wire.openai; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "nbllm.wire.openai" in loaded
    assert not loaded & {"numpy", "pydantic", "openai", "tornado", "asyncio", "jinja2", "llguidance", "pandas"}
