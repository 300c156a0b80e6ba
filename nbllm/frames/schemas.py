"""The shape of a row's answer, as a constraint for the model and as typed columns for the table.

    "name, age int, tags list[str], born date"     fields; also one a line, and `name: what it means`
    ["yes", "no"]                                  choices
    a pydantic model, a JSON Schema, dict, list, bool, "json_object", OpenAI's response_format

Types are str, int, float, bool, date, datetime, and list[...] of one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbllm.chat import constraints
from nbllm.chat.schemas import schema_from_text
from nbllm.core import Constraint
from nbllm.errors import ConstraintError
from nbllm.frames.dtypes import TEXT, dtype_of, fitted

VALUE = "value"
"""The column of an answer that is no object with fields of its own."""
_SCALARS: Mapping[str, Mapping[str, str]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
}
_RICH_FIELD = re.compile(
    r"(?P<name>\s*[\w-]+)\s+(?P<type>list\[\s*\w+\s*\]|date|datetime)(?P<rest>\s*(?:[:,].*)?)", re.S
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What an answer looks like.

    Attributes:
        constraint: what holds the model to it.
        columns: pandas' dtype of each column. One called `VALUE` where the answer has no fields.
        has_fields: whether the answer is an object whose fields are the columns.
        choices: what the answer is one of, () when it is not that.
    """

    constraint: Constraint
    columns: Mapping[str, str]
    has_fields: bool
    choices: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, response_format: object) -> Shape | None:
        """The shape that a person means; None is free text.

        Raises:
            ConstraintError: it is no shape, or one that cannot be guaranteed.
        """
        constraint = _constraint(response_format)
        if constraint is None:
            return None
        constraints.grammar(constraint)
        if constraint.kind != "json_schema":
            choices = tuple(json.loads(constraint.source)) if constraint.kind == "choice" else ()
            return cls(constraint, {VALUE: TEXT}, False, choices)
        schema = json.loads(constraint.source)
        properties = _properties(schema)
        if properties:
            return cls(constraint, {name: dtype_of(part, schema) for name, part in properties.items()}, True)
        return cls(constraint, {VALUE: dtype_of(schema, schema)}, False)

    @property
    def json_schema(self) -> dict[str, Any]:
        """As a JSON Schema; choices are an enum."""
        if self.constraint.kind == "json_schema":
            schema = json.loads(self.constraint.source)
            return schema if isinstance(schema, dict) else {}
        return {"type": "string", "enum": list(self.choices)} if self.choices else {"type": "string"}

    @property
    def options(self) -> dict[str, Any]:
        """The keyword option of `Model.chat` that asks for it."""
        return {"choice": list(self.choices)} if self.choices else {"response_format": self.constraint}

    def row(self, parsed: object) -> dict[str, Any]:
        """The values of one answer's columns; None for what is not there, null, or not of the column's type."""
        if not self.has_fields:
            return {VALUE: fitted(parsed, self.columns[VALUE])}
        values = parsed if isinstance(parsed, Mapping) else {}
        return {name: fitted(values.get(name), dtype) for name, dtype in self.columns.items()}


def _constraint(response_format: object) -> Constraint | None:
    if isinstance(response_format, str) and response_format not in ("text", "json_object"):
        return constraints.from_response_format(_schema_of_text(response_format))
    return constraints.from_response_format(response_format)


def _schema_of_text(text: str) -> dict[str, Any]:
    """What `schema_from_text` reads, and dates and lists besides."""
    if text.lstrip().startswith("{"):
        return schema_from_text(text)
    separator = "\n" if len(text.strip().splitlines()) > 1 else ","
    rich: dict[str, dict[str, Any]] = {}
    parts = [_as_text_field(part, rich) for part in text.split(separator)]
    schema = schema_from_text(separator.join(parts))
    for name, kind in rich.items():
        schema["properties"][name].update(kind)
    return schema


def _as_text_field(part: str, rich: dict[str, dict[str, Any]]) -> str:
    """A field of text in the place of one of another kind, which is put into `rich`."""
    match = _RICH_FIELD.fullmatch(part)
    if match is None:
        return part
    rich[match["name"].strip()] = _rich(match["name"].strip(), match["type"])
    return match["name"] + match["rest"]


def _rich(name: str, kind: str) -> dict[str, Any]:
    if not kind.startswith("list["):
        return dict(_SCALARS[kind])
    items = kind.removeprefix("list[").removesuffix("]").strip()
    if items not in _SCALARS:
        known = ", ".join(_SCALARS)
        raise ConstraintError(f"schema: {kind:.100} of {name:.100} is no list that is known; list[...] of {known}")
    return {"type": "array", "items": dict(_SCALARS[items])}


def _properties(schema: object) -> Mapping[str, Any]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}
