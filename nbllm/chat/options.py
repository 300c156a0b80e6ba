"""The variables that a request may give to a chat template: plain data, whose texts are no control tokens either."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbllm.errors import ParameterError

_MAX_DEPTH = 20


def checked_options(options: Mapping[str, Any], reserved: Sequence[str]) -> dict[str, Any]:
    """A copy of `options` in lists and dicts. Raises ParameterError for anything but JSON's values."""
    for name in options:
        if not isinstance(name, str):
            raise ParameterError("template_options", f"{name!r:.100} is no name of a variable: give a text")
        if name in reserved:
            raise ParameterError("template_options", f"{name!r} is the template's own: choose from its other variables")
    return {name: _copied(value, name, 0) for name, value in options.items()}


def _copied(value: Any, name: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ParameterError("template_options", f"{name} is nested more than {_MAX_DEPTH} levels deep")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        return [_copied(item, name, depth + 1) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str(key): _copied(item, name, depth + 1) for key, item in value.items()}
    raise ParameterError("template_options", f"{name} must be plain data (text, numbers, lists), not {value!r:.100}")


def texts_of(value: Any) -> list[str]:
    """Every text in a checked value, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *texts_of(item))]
    return []


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A checked value with every text changed; its keys stay, since a template looks them up by name."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: map_texts(item, change) for key, item in value.items()}
    return value
