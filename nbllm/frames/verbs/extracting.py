"""`extract`: typed columns out of a text."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

from nbllm.chat.schemas import unbounded
from nbllm.errors import ConstraintError, ParameterError
from nbllm.frames.dtypes import DATE
from nbllm.frames.schemas import Shape
from nbllm.frames.verbs.mapping import as_json, misfit
from nbllm.frames.verbs.plan import Row
from nbllm.frames.verbs.result import carried_out
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source
from nbllm.frames.verbs.texts import text_plan

_FORMS = "'name, age int', a pydantic model, or a JSON Schema of an object with properties"
_BASE = "extract"
_SIMPLE = frozenset(("type", "description", "title", "format"))
"""What a field's schema may have beside which a line of text says it all."""


def extract(source: Source, col: Any, schema: Any, *, prefix: str = "", **options: Any) -> Any:
    column = source.column("col", col)
    if not isinstance(prefix, str):
        raise ParameterError("prefix", f"must be a text, not {prefix!r:.100}")
    if "into" in options:
        raise ParameterError("into", "is for one new column, and here is one a field; give prefix= for their names")
    shape = _shape(schema)
    settings = Settings.of(options, response_format=shape.constraint)
    columns: dict[Hashable, str] = {f"{prefix}{name}": dtype for name, dtype in shape.columns.items()}
    plan = text_plan(
        source,
        settings,
        column,
        _instruction(shape),
        columns,
        lambda response: list(shape.row(response.parsed).values()),
        lambda row: _written(shape, prefix, row),
        base=f"{prefix}{_BASE}",
        option="prefix",
        is_table=True,
        misfit=partial(misfit, shape),
    )
    return carried_out(source, plan, settings)


def _shape(schema: Any) -> Shape:
    try:
        shape = Shape.of(schema)
    except ConstraintError as error:
        problem = str(error).removeprefix("response_format: ").removeprefix("schema: ")  # what it is called elsewhere
        raise ConstraintError(f"schema: {problem}") from error.__cause__
    if shape is None or not shape.has_fields:
        raise ParameterError("schema", f"must have fields: {_FORMS}, not {schema!r:.100}")
    return shape


def _instruction(shape: Shape) -> str:
    schema = unbounded(shape.json_schema)
    fields = unbounded(shape.fields)
    if all(isinstance(field, Mapping) and _SIMPLE.issuperset(field) for field in fields.values()):
        listed = "\n".join(f"- {name}{_meaning(field)}" for name, field in fields.items())
        return f"Extract these fields from the text below, as a JSON object:\n{listed}"
    return f"Extract from the text below a JSON object that fits this JSON Schema:\n{json.dumps(schema)}"


def _meaning(field: Mapping[str, Any]) -> str:
    kind, description = field.get("format", field.get("type")), field.get("description")
    kinds = kind if isinstance(kind, list) else [kind]
    told = f" ({' or '.join(kinds)})" if all(isinstance(kind, str) for kind in kinds) else ""
    return told + f": {description}" * isinstance(description, str)


def _written(shape: Shape, prefix: str, row: Row) -> str:
    values = {name: row[f"{prefix}{name}"] for name in shape.columns}
    for name, dtype in shape.columns.items():
        if dtype == DATE and hasattr(values[name], "date"):
            values[name] = values[name].date()
    return as_json(values)
