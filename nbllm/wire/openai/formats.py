"""The four ways of a request to say what shape the answer has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbllm.core import Constraint
from nbllm.errors import ParameterError
from nbllm.wire.decoding import json_text
from nbllm.wire.openai.shapes import GenerationBody, ResponseFormat

_TYPES = ("text", "json_object", "json_schema")


def constraint(body: GenerationBody) -> Constraint | None:
    """The only one that was asked for.

    Raises:
        ParameterError: there are two, or one is malformed. Whether it can be followed is for the engine to say.
    """
    made = [
        (name, shape)
        for name, make in _SHAPES.items()
        if (value := getattr(body, name)) is not None and (shape := make(value)) is not None
    ]
    if len(made) > 1:
        raise ParameterError(made[1][0], f"goes without {made[0][0]}: each says what shape the answer has")
    return made[0][1] if made else None


def _response_format(given: ResponseFormat) -> Constraint | None:
    if given.type not in _TYPES:
        raise ParameterError("response_format.type", f"{given.type!r:.60} is not one of {', '.join(_TYPES)}")
    if given.type == "text":
        return None
    if given.type == "json_object":
        schema = {"type": "object"} if given.schema is None else given.schema
        return Constraint("json_schema", json_text(schema, "response_format.schema"))
    if given.json_schema is None:
        raise ParameterError("response_format.json_schema", "is required: an object with name and schema")
    schema = True if given.json_schema.schema is None else given.json_schema.schema  # none allows any JSON
    return Constraint("json_schema", json_text(schema, "response_format.json_schema.schema"))


def _grammar(text: str) -> Constraint:
    """GBNF defines its rules with `::=`, Lark with `:`."""
    return Constraint("gbnf" if "::=" in text else "lark", text)


def _regex(pattern: str) -> Constraint:
    return Constraint("regex", pattern)


def _choice(options: list[str]) -> Constraint:
    if not options or "" in options:
        raise ParameterError("choice", "must be a list of texts, none of them empty")
    return Constraint("choice", json_text(list(dict.fromkeys(options)), "choice"))


_SHAPES: dict[str, Callable[[Any], Constraint | None]] = {
    "response_format": _response_format,
    "grammar": _grammar,
    "regex": _regex,
    "choice": _choice,
}
