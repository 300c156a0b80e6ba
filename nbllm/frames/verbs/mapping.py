"""`map`: a prompt a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from nbllm.frames.schemas import VALUE, Shape
from nbllm.frames.templates import shown
from nbllm.frames.verbs.plan import Plan, Row, Shots
from nbllm.frames.verbs.result import carried_out
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source, new_name
from nbllm.session.response import Response

_OBJECT, _TEXT = "object", "str"


def map_rows(source: Source, prompt: str, *, into: str = "response", **options: Any) -> Any:
    return carried_out(source, *planned(source, prompt, new_name("into", into), options))


def planned(source: Source, prompt: str, into: str, options: Mapping[str, Any]) -> tuple[Plan, Settings]:
    template = source.template("prompt", prompt)
    uses = source.used(template.names)
    settings, answer = shaped(options)

    def text(row: Row) -> str:
        return template.render(source.named(row)) or ""  # a row with a null is not asked

    shots = Shots.of(settings, uses, text, [into], lambda row: answer.written(row[into]))
    plan = Plan(
        uses=uses,
        requests=lambda row: [shots.ask(text(row))],
        columns={into: answer.dtype},
        read=lambda values: [answer.read(values[0])],
        base=into,
        misfit=answer.misfit,
    )
    return plan, settings


class Answer:
    """What a free prompt's answer is in a column: a text, a value of one type, or an object with fields."""

    def __init__(self, shape: Shape | None) -> None:
        self._shape = shape
        self.dtype = _TEXT if shape is None else _OBJECT if shape.has_fields else shape.columns[VALUE]

    def read(self, response: Response) -> Any:
        if self._shape is None or self._shape.constraint.kind != "json_schema":
            return response.text
        return response.parsed if self._shape.has_fields else self._shape.row(response.parsed)[VALUE]

    def misfit(self, response: Response) -> str | None:
        """What of an answer the column has no place for, None if nothing."""
        return None if self._shape is None else misfit(self._shape, response)

    def written(self, value: Any) -> str:
        """An example's answer, as the model would write it."""
        is_written = isinstance(value, str) and self.dtype == _OBJECT
        if self._shape is None or self._shape.constraint.kind != "json_schema" or is_written:
            return shown(value)
        return as_json(value)


def shaped(options: Mapping[str, Any]) -> tuple[Settings, Answer]:
    """The settings of a call that may say what shape the answers have, and what that makes of them."""
    shape = Shape.of(options.get("response_format"))
    constraint = None if shape is None else shape.constraint
    return Settings.of({**options, "response_format": constraint}), Answer(shape)


def misfit(shape: Shape, response: Response) -> str | None:
    """What of an answer the columns of its form have no place for, None if nothing."""
    if shape.constraint.kind != "json_schema":
        return None
    if response.parsed is None and response.text.strip() != "null":
        return f"the answer is not the JSON that was asked for: {response.text!r:.60}"
    return shape.misfit(response.parsed)


def as_json(value: Any) -> str:
    """JSON of what a column holds: numpy's numbers and pandas' times too."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    for name in ("isoformat", "tolist", "item"):
        convert: Callable[[], Any] | None = getattr(value, name, None)
        if convert is not None:
            return convert()
    return str(value)
