"""The shape of a row's answer, as a constraint for the model and as typed columns for the table.

    "name, age int, tags list[str], born date?"    fields, see `nbllm.chat.schemas`
    ["yes", "no"]                                  choices
    a pydantic model, a JSON Schema, dict, list, bool, int, "json_object", OpenAI's response_format

A pydantic model stands for its JSON Schema: its validators are not run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbllm.chat import constraints
from nbllm.chat.schemas import schema_from_text
from nbllm.core import Constraint
from nbllm.frames.dtypes import TEXT, dtype_of, fitted, resolved

VALUE = "value"
"""The column of an answer that is no object with fields of its own."""
_LONGEST = 60
_MOST_STEPS = 20


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
        fields = _fields(schema)
        if fields:
            return cls(constraint, {name: dtype_of(part, schema) for name, part in fields.items()}, True)
        return cls(constraint, {VALUE: dtype_of(schema, schema)}, False)

    @property
    def json_schema(self) -> dict[str, Any]:
        """As a JSON Schema; choices are an enum."""
        if self.constraint.kind == "json_schema":
            schema = json.loads(self.constraint.source)
            return schema if isinstance(schema, dict) else {}
        return {"type": "string", "enum": list(self.choices)} if self.choices else {"type": "string"}

    @property
    def fields(self) -> Mapping[str, Any]:
        """The JSON Schema of each field."""
        return _fields(self.json_schema)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword option of `Model.chat` that asks for it."""
        return {"choice": list(self.choices)} if self.choices else {"response_format": self.constraint}

    def row(self, parsed: object) -> dict[str, Any]:
        """The values of one answer's columns; None for what is not there, null, or not of the column's type."""
        return {name: fitted(value, self.columns[name]) for name, value in self._values(parsed).items()}

    def misfit(self, parsed: object) -> str | None:
        """What of an answer `row` has no place for, None if nothing. Not every schema promises what a column needs."""
        if self.has_fields and parsed is not None and not isinstance(parsed, Mapping):
            return f"{_shown(parsed)} is no object with fields"
        for name, value in self._values(parsed).items():
            if value is not None and fitted(value, self.columns[name]) is None:
                where = f"{name:.60}: " if self.has_fields else ""
                return f"{where}{_shown(value)} does not fit into a column of {self.columns[name]}"
        return None

    def _values(self, parsed: object) -> Mapping[str, object]:
        if not self.has_fields:
            return {VALUE: parsed}
        values = parsed if isinstance(parsed, Mapping) else {}
        return {name: values.get(name) for name in self.columns}


def _constraint(response_format: object) -> Constraint | None:
    if isinstance(response_format, str) and response_format not in ("text", "json_object"):
        return constraints.from_response_format(schema_from_text(response_format))
    return constraints.from_response_format(response_format)


def _fields(schema: object) -> Mapping[str, Any]:
    """Of an object; pydantic writes of a class that holds itself where it is."""
    part = schema
    for _ in range(_MOST_STEPS):
        if isinstance(part, Mapping) and "$ref" in part and "properties" not in part:
            part = resolved(part["$ref"], schema)
    properties = part.get("properties") if isinstance(part, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def _shown(value: object) -> str:
    """As JSON has it, on one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
