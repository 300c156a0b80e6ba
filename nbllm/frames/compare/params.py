"""The grid of parameters that a comparison goes through."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.core import Message
from nbllm.errors import ParameterError
from nbllm.frames.asks import row_seed
from nbllm.frames.schemas import Shape
from nbllm.session.options import OPTIONS
from nbllm.session.requests import Options

_ELSEWHERE = {
    "seed": "give seed= to compare: each row's own is made of it",
    "n": "give repeat= to compare: each answer is a row",
    "tools": "a comparison takes no tools",
    "tool_choice": "a comparison takes no tools",
    "parallel_tool_calls": "a comparison takes no tools",
    "continue_final": "a comparison answers its prompts; leave it out",
}
_TABLE_TEMPERATURE = 0.0
"""Of a table, where nothing else is said: the same each time."""


@dataclass(frozen=True, slots=True)
class ParamSet:
    """One combination.

    Attributes:
        values: as they were given, by name; plain JSON.
        options: the same and what all rows have in common, as a request has it.
    """

    values: Mapping[str, Any]
    options: Options

    @property
    def varies(self) -> bool:
        """Whether another seed may give another answer."""
        return self.options.sampling.temperature != 0

    def seed(self, seed: int, messages: Sequence[Message], repeat: int) -> int:
        return row_seed(seed, messages, repeat if self.varies else 0)


def place_of(name: str, value: Any) -> str | None:
    """Where an option of `Model.chat` belongs that was given to `compare` itself; None when it is none."""
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    close = difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.8)
    return f"put it into params={{{close[0]!r}: {value!r:.60}}}" if close else None


def param_sets_of(params: Any, *, system: str | None, response_format: Any) -> list[ParamSet]:
    """Every combination of a dict of lists, or each dict of a list; None is one, and all greedy.

    Raises:
        InvalidRequestError: an option is unknown, or a value is of a wrong type, out of range or no form of answer.
    """
    common = {"system": system, "response_format": response_format}
    return [_param_set(values, common) for values in _combinations(params)]


def _param_set(values: Mapping[str, Any], common: Mapping[str, Any]) -> ParamSet:
    for name, advice in _ELSEWHERE.items():
        if name in values:
            raise ParameterError(f"params[{name!r}]", advice)
    for name in common:
        if common[name] is not None and name in values:
            raise ParameterError(name, "is given to compare and in params; give it in one place")
    values = {"temperature": _TABLE_TEMPERATURE, **values}
    asked = {**common, **values}
    shape = Shape.of(asked.pop("response_format"))
    options = Options.of({**asked, **({} if shape is None else shape.options)})
    if options.sampling.temperature is None:
        raise ParameterError("params['temperature']", "must be a number, and 0 is the same text each time")
    return ParamSet(_plain(values), options)


def plain_shape(response_format: Any) -> Any:
    """A form of answers as JSON has it, and as `response_format` takes it again."""
    shape = Shape.of(response_format)
    if shape is None or shape.choices:
        return None if shape is None else list(shape.choices)
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": shape.json_schema}}


def column_of(values: Sequence[Any]) -> list[Any]:
    """A parameter's values as a column has them: numbers, texts and truths as they are, whatever else as JSON."""
    return [
        value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
        for value in values
    ]


def _combinations(params: Any) -> list[dict[str, Any]]:
    if params is None:
        return [{}]
    if isinstance(params, Mapping):
        axes = [_axis(name, values) for name, values in params.items()]
        return [dict(zip(map(str, params), chosen, strict=True)) for chosen in itertools.product(*axes)]
    if isinstance(params, str) or not isinstance(params, Iterable):
        raise ParameterError("params", f"must be a dict of lists or a list of dicts, not {params!r:.100}")
    listed = list(params)
    if not listed or not all(isinstance(values, Mapping) for values in listed):
        raise ParameterError("params", "a list must hold dicts, one a combination, such as [{'temperature': 0}]")
    return [{str(name): value for name, value in values.items()} for values in listed]


def _axis(name: object, values: Any) -> list[Any]:
    """A single value is an axis of one."""
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        return [values]
    axis = list(values)
    if not axis:
        raise ParameterError(f"params[{name!r}]", "is an empty list: give at least one value")
    return axis


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it. Raises ParameterError for what it cannot have, for a manifest could not say it."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=_plain_value))
    except (TypeError, ValueError) as error:
        raise ParameterError("params", f"must be plain values, so that the run can be repeated: {error}") from error
    return plain


def _plain_value(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's
        return value.tolist()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    if callable(getattr(value, "model_json_schema", None)):
        return value.model_json_schema()
    raise TypeError(f"{value!r:.100} is none")
