"""The methods of text, lists and mappings that a template may call. None of them changes its value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from nbllm.chat.budget import Budget, ProgramError, weight
from nbllm.chat.values import Function, Undefined, Value, checked_key, elements, equal, kind, to_text

_FIELD = re.compile(r"\{\{|\}\}|\{(\w*)\}|[{}]")
_PLAIN = (
    "strip lstrip rstrip upper lower title capitalize startswith endswith find count index "
    "isdigit isnumeric isdecimal isalpha isalnum isspace isupper islower removeprefix removesuffix"
)


def method(value: Value, name: str) -> Function | None:
    """The method `name` bound to `value`, or None if that is not one that a template may call."""
    table = _TABLES.get(type(value))
    found = None if table is None else table.get(name)
    if found is None:
        return None
    return Function(name, lambda budget, *args, **kwargs: found(budget, value, *args, **kwargs))


def _plain(name: str) -> Callable[..., Value]:
    function = getattr(str, name)

    def call(budget: Budget, text: str, *args: Value) -> Value:
        budget.take(3 * weight(text))  # upper() can triple a text
        return function(text, *(tuple(arg) if isinstance(arg, list) else arg for arg in args))

    return call


def rfind(budget: Budget, text: str, wanted: str) -> int:
    budget.take(weight(text) * (1 + len(wanted) // 16))  # CPython searches backwards in quadratic time
    return text.rfind(wanted)


def split(budget: Budget, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    return _pieces(budget, text, sep, maxsplit, str.split)


def rsplit(budget: Budget, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    budget.take(weight(text) * (1 + len(sep or "") // 16))
    return _pieces(budget, text, sep, maxsplit, str.rsplit)


def _pieces(budget: Budget, text: str, sep: str | None, maxsplit: int, function: Callable[..., list[str]]) -> list[str]:
    most = len(text) // 2 if sep is None else text.count(sep) if sep else 0
    budget.take(weight(text) + 96 * (1 + (most if maxsplit < 0 else min(most, maxsplit))))
    return function(text, sep, maxsplit)


def splitlines(budget: Budget, text: str, keepends: bool = False) -> list[str]:
    budget.take(96 * len(text))
    return text.splitlines(bool(keepends))


def replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    budget.take(weight(text))
    found = text.count(old)
    if count >= 0:
        found = min(found, count)
    budget.take(weight(text) + found * weight(new))
    return text.replace(old, new, count)


def join(budget: Budget, glue: str, parts: Value) -> str:
    texts = elements(parts, budget)
    if not all(isinstance(text, str) for text in texts):
        raise ProgramError("join() needs a list of texts")
    budget.items(len(texts))
    budget.take(sum(map(weight, texts)) + len(texts) * weight(glue))
    return glue.join(texts)


def format_text(budget: Budget, form: str, *args: Value, **kwargs: Value) -> str:
    """`"{} {1} {name}".format(...)`, without the attribute look-ups and widths of Python's own."""
    unnamed = iter(args)

    def filled(match: re.Match[str]) -> str:
        field = match.group(1)
        if field is None:
            if len(match.group()) == 1:
                raise ProgramError("format() takes only plain {}, {0} and {name} fields")
            return match.group()[0]
        value = next(unnamed, None) if not field else _field(field, args, kwargs)
        text = to_text(value, budget)
        budget.take(weight(text))
        return text

    budget.take(weight(form))
    return _FIELD.sub(filled, form)


def _field(name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
    if name.isdecimal():
        return args[int(name)] if len(name) < 4 and int(name) < len(args) else None
    return kwargs.get(name, Undefined(name))


def get(budget: Budget, mapping: dict[Any, Value], key: Value, default: Value = None) -> Value:
    return mapping.get(checked_key(key), default)


def items(budget: Budget, mapping: dict[Any, Value]) -> list[tuple[Value, Value]]:
    budget.items(5 * len(mapping))
    return list(mapping.items())


def keys(budget: Budget, mapping: dict[Any, Value]) -> list[Value]:
    budget.items(len(mapping))
    return list(mapping)


def values(budget: Budget, mapping: dict[Any, Value]) -> list[Value]:
    budget.items(len(mapping))
    return list(mapping.values())


def count_in(budget: Budget, parts: list[Value], wanted: Value) -> int:
    return sum(equal(part, wanted, budget) for part in parts)


def index_in(budget: Budget, parts: list[Value], wanted: Value) -> int:
    for index, part in enumerate(parts):
        if equal(part, wanted, budget):
            return index
    raise ProgramError(f"the {kind(wanted)} is not in the list")


_TEXT: dict[str, Callable[..., Value]] = {name: _plain(name) for name in _PLAIN.split()}
_TEXT |= {
    "rfind": rfind,
    "split": split,
    "rsplit": rsplit,
    "splitlines": splitlines,
    "replace": replace,
    "join": join,
    "format": format_text,
}
_MAPPING: dict[str, Callable[..., Value]] = {"get": get, "items": items, "keys": keys, "values": values}
_LIST: dict[str, Callable[..., Value]] = {"count": count_in, "index": index_in}
_TABLES: Mapping[type, Mapping[str, Callable[..., Value]]] = {str: _TEXT, dict: _MAPPING, list: _LIST, tuple: _LIST}
