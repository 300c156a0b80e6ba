"""A JSON Schema from the few words in which a person describes an answer, as the `llm` command has them and more.

    name, age int, bio: one line of text

    name: the full name, as printed
    born date?: none if it is not said
    tags list[str]
    is_member: bool

Fields stand on lines of their own, else between commas. A field is its name, its type if it is not `str` (`int`,
`float`, `bool`, `date`, `datetime`, `list[...]` of one of them, each with a `?` where the value may be null), and a
description after a colon. A description that is a type and nothing else is the type, as in Python. A text that begins
with `{` is a JSON Schema itself: for choices and objects inside the object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from nbllm.errors import ConstraintError

_MOST = 999_999_999_999_999_872
"""Of 18 digits, the largest that a double has exactly: llguidance makes doubles of bounds."""
INTEGER: Mapping[str, Any] = {"type": "integer", "minimum": -_MOST, "maximum": _MOST}
"""What `int` means: it fits into 64 bits. Without a bound a small model may write digits for ever."""
_TYPES: Mapping[str, Mapping[str, Any]] = {
    "str": {"type": "string"},
    "int": INTEGER,
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
}
_JSON_TYPES = frozenset(("string", "integer", "number", "boolean", "object", "array", "null"))
_LIST = re.compile(r"list\[(\w+)\]")
_NAME = re.compile(r"[\w-]+")
_LOW = ("minimum", "exclusiveMinimum")
_HIGH = ("maximum", "exclusiveMaximum")
_EXACT = frozenset(("enum", "const", "multipleOf"))
_KNOWN = (
    f"{', '.join(_TYPES)}, or list[...] of one of them, with a ? behind it where there may be none; "
    "a description stands after a colon, and for choices and objects give a JSON Schema"
)
_FORM = "write fields such as 'name, age int, bio: one line', or a JSON Schema"


def schema_from_text(text: str) -> dict[str, Any]:
    """The schema of an object that has every field and no other, or the schema that `text` is.

    Raises:
        ConstraintError: it is neither form; the message says what to write.
    """
    if text.lstrip().startswith("{"):
        return _json_schema(text)
    properties: dict[str, Any] = {}
    for field in _fields(text):
        name, schema = _property(field)
        if name in properties:
            raise ConstraintError(f"schema: the field {name:.100} is there twice; leave one out")
        properties[name] = schema
    if not properties:
        raise ConstraintError(f"schema: there is no field in it; {_FORM}")
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def bounded(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that a Python type made, with `INTEGER`'s bounds where it leaves an integer without.

    Only the schema itself, not those in it.
    """
    if schema.get("type") != "integer" or _EXACT & schema.keys():
        return dict(schema)
    given = [schema[name] for name in (*_LOW, *_HIGH) if name in schema]
    if not all(isinstance(bound, int | float) and -_MOST < bound < _MOST for bound in given):
        return dict(schema)
    low = {} if any(name in schema for name in _LOW) else {"minimum": INTEGER["minimum"]}
    high = {} if any(name in schema for name in _HIGH) else {"maximum": INTEGER["maximum"]}
    return {**schema, **low, **high}


def unbounded(schema: Any) -> Any:
    """A schema without `INTEGER`'s bounds, in all its parts: they are for the grammar, and tell a reader nothing."""
    if isinstance(schema, list):
        return [unbounded(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    own = [name for name in ("minimum", "maximum") if name in schema and schema[name] == INTEGER[name]]
    return {name: unbounded(part) for name, part in schema.items() if name not in own}


def _fields(text: str) -> Iterator[str]:
    """Lines may end in a comma too: it is easily left there when a list is broken into lines."""
    lines = [line.strip() for line in text.strip().splitlines()]
    parts = [line.removesuffix(",") for line in lines] if len(lines) > 1 else text.split(",")
    return (part.strip() for part in parts if part.strip())


def _property(field: str) -> tuple[str, dict[str, Any]]:
    head, _, after = field.partition(":")
    name, *words = head.split(maxsplit=1) or [""]
    word, description = _joined(" ".join(words)), " ".join(after.split())
    if not _NAME.fullmatch(name) or " " in word:
        raise ConstraintError(f"schema: {field!r:.100} is not a field; {_FORM}")
    if not word and _schema_of(_joined(description)) is not None:
        word, description = _joined(description), ""
    schema = _schema_of(word or "str")
    if schema is None:
        raise ConstraintError(f"schema: the type {word!r:.100} of {name:.100} is not one of {_KNOWN}")
    return name, schema | ({"description": description} if description else {})


def _joined(word: str) -> str:
    """A type without the white space that it may have inside: `list[ int ]`, `int | None`."""
    return re.sub(r"\s*([\[\]|?])\s*", r"\1", " ".join(word.split()))


def _schema_of(word: str) -> dict[str, Any] | None:
    plain = word.removesuffix("|None").removesuffix("?")
    items = _LIST.fullmatch(plain)
    kind = _TYPES.get(plain if items is None else items[1])
    if kind is None:
        return None
    schema = dict(kind) if items is None else {"type": "array", "items": dict(kind)}
    return schema if plain == word else {**schema, "type": [schema["type"], "null"]}


def _json_schema(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except ValueError as exc:
        raise ConstraintError(f"schema: it begins with {{ but is not JSON: {exc}") from exc
    except RecursionError:
        raise ConstraintError("schema: it is nested too deeply") from None
    kinds = schema.get("type", "object")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in _JSON_TYPES:
            raise ConstraintError(f"schema: 'type' is one of {', '.join(sorted(_JSON_TYPES))}, not {kind!r:.100}")
    checked: dict[str, Any] = schema
    return checked
