"""A JSON Schema from the few words in which a person describes an answer, the concise form of the `llm` command.

    name, age int, bio: one line of text

    name: the full name, as printed
    age int
    is_member bool: whether they pay

Fields stand on lines of their own, else between commas. A field is its name, its type if it is not `str` (`int`,
`float`, `bool`), and a description after a colon. A text that begins with `{` is a JSON Schema itself: for lists,
choices and objects inside the object.
"""

from __future__ import annotations

import json
import re
from typing import Any

from nbllm.errors import ConstraintError

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_JSON_TYPES = frozenset((*_TYPES.values(), "object", "array", "null"))
_FIELD = re.compile(r"(?P<name>[\w-]+)(?:\s+(?P<type>[^\s:]+))?\s*(?::(?P<description>.*))?", re.DOTALL)
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


def _fields(text: str) -> list[str]:
    """Lines may end in a comma too: it is easily left there when a list is broken into lines."""
    lines = [line.strip() for line in text.strip().splitlines()]
    parts = [line.removesuffix(",") for line in lines] if len(lines) > 1 else text.split(",")
    return [part.strip() for part in parts if part.strip()]


def _property(field: str) -> tuple[str, dict[str, str]]:
    match = _FIELD.fullmatch(field)
    if match is None:
        raise ConstraintError(f"schema: {field!r:.100} is not a field; {_FORM}")
    kind = _TYPES.get(match["type"] or "str")
    if kind is None:
        raise ConstraintError(
            f"schema: the type {match['type']!r:.100} of {match['name']:.100} is not one of {', '.join(_TYPES)}; "
            "a description stands after a colon, and for lists and objects give a JSON Schema"
        )
    description = " ".join((match["description"] or "").split())
    return match["name"], {"type": kind} | ({"description": description} if description else {})


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
