"""The filters and tests that chat templates use: Jinja's own, with `tojson` as Hugging Face defines it."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from typing import Any

from nbllm.chat import methods
from nbllm.chat.access import get_item
from nbllm.chat.budget import Budget, ProgramError, weight
from nbllm.chat.operators import COMPARISONS
from nbllm.chat.values import Function, Undefined, Value, elements, equal, kind, pay_for_writing, to_text

_MAX_INDENT = 32


def tojson(
    budget: Budget,
    value: Value,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: list[str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and indent > _MAX_INDENT:
        raise ProgramError(f"tojson(indent={indent}): at most {_MAX_INDENT}")
    if separators is not None and any(len(str(text)) > _MAX_INDENT for text in separators):
        raise ProgramError("tojson: the separators are too long")
    pay_for_writing(value, budget, indent if isinstance(indent, int) else 0)
    pair = None if separators is None else (str(separators[0]), str(separators[1]))
    return json.dumps(value, ensure_ascii=bool(ensure_ascii), indent=indent, separators=pair, sort_keys=bool(sort_keys))


def default(budget: Budget, value: Value, default_value: Value = "", boolean: bool = False) -> Value:
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


def length(budget: Budget, value: Value) -> int:
    if isinstance(value, str | list | tuple | dict):
        return len(value)
    if isinstance(value, Undefined):
        return 0
    raise ProgramError(f"a {kind(value)} has no length")


def trim(budget: Budget, value: Value, chars: str | None = None) -> str:
    return budget.text(to_text(value, budget).strip(chars))


def as_text(budget: Budget, value: Value) -> str:
    return to_text(value, budget)


def as_int(budget: Budget, value: Value, default: int = 0) -> int:
    text = to_text(value, budget)
    try:
        return int(value) if isinstance(value, int | float) else int(text[:100])
    except (ValueError, OverflowError):
        return default


def as_float(budget: Budget, value: Value, default: float = 0.0) -> float:
    try:
        return float(to_text(value, budget)[:100])
    except ValueError:
        return default


def as_list(budget: Budget, value: Value) -> list[Value]:
    parts = elements(value, budget)
    budget.items(len(parts))
    return list(parts)


def first(budget: Budget, value: Value) -> Value:
    parts = value if isinstance(value, str) else elements(value, budget)
    return parts[0] if parts else Undefined("first")


def last(budget: Budget, value: Value) -> Value:
    parts = value if isinstance(value, str) else elements(value, budget)
    return parts[-1] if parts else Undefined("last")


def reverse(budget: Budget, value: Value) -> Value:
    if isinstance(value, str):
        return budget.text(value[::-1])
    return as_list(budget, value)[::-1]


def join(budget: Budget, value: Value, d: str = "", attribute: Value = None) -> str:
    parts = elements(value, budget)
    if attribute is not None:
        parts = [_reach(budget, part, attribute) for part in parts]
    budget.step(2 * len(parts))
    return methods.join(budget, to_text(d, budget), [to_text(part, budget) for part in parts])


def replace(budget: Budget, value: Value, old: str, new: str, count: int | None = None) -> str:
    return methods.replace(budget, to_text(value, budget), old, new, -1 if count is None else count)


def items(budget: Budget, value: Value) -> list[tuple[Value, Value]]:
    if isinstance(value, Undefined):
        return []
    return methods.items(budget, _mapping(value))


def dictsort(
    budget: Budget, value: Value, case_sensitive: bool = False, by: str = "key", reverse: bool = False
) -> list[tuple[Value, Value]]:
    place = 1 if by == "value" else 0
    pairs = methods.items(budget, _mapping(value))
    budget.step(16 * len(pairs))
    return sorted(pairs, key=lambda pair: _sortable(pair[place], case_sensitive), reverse=bool(reverse))


def sort(
    budget: Budget, value: Value, reverse: bool = False, case_sensitive: bool = False, attribute: Value = None
) -> list[Value]:
    parts = as_list(budget, value)
    budget.step(16 * len(parts))
    keys = [_sortable(_reach(budget, part, attribute), case_sensitive) for part in parts]
    order = sorted(range(len(parts)), key=keys.__getitem__, reverse=bool(reverse))
    return [parts[index] for index in order]


def unique(budget: Budget, value: Value, case_sensitive: bool = False, attribute: Value = None) -> list[Value]:
    parts = as_list(budget, value)
    budget.step(8 * len(parts))
    seen: dict[Value, Value] = {}
    for part in parts:
        seen.setdefault(_sortable(_reach(budget, part, attribute), case_sensitive), part)
    return list(seen.values())


def _mapping(value: Value) -> dict[Any, Value]:
    if not isinstance(value, dict):
        raise ProgramError(f"a {kind(value)} has no items")
    return value


def _sortable(value: Value, case_sensitive: bool) -> Value:
    if not isinstance(value, str | int | float):
        raise ProgramError(f"a {kind(value)} cannot be sorted")
    return value.lower() if isinstance(value, str) and not case_sensitive else value


def _reach(budget: Budget, value: Value, attribute: Value) -> Value:
    """`attribute` may be a path ("function.name") or an index."""
    if attribute is None:
        return value
    for name in attribute.split(".") if isinstance(attribute, str) else [attribute]:
        budget.step(2)
        value = get_item(value, int(name) if isinstance(name, str) and name.isdecimal() and len(name) < 9 else name)
    return value


def map_each(budget: Budget, value: Value, *args: Value, **kwargs: Value) -> list[Value]:
    """`map("upper")`, or `map(attribute="name", default="")`."""
    parts = elements(value, budget) if value else ()
    budget.step(8 * len(parts))
    if args:
        return [filter_named(args[0])(budget, part, *args[1:], **kwargs) for part in parts]
    fallback = kwargs.pop("default", None)
    path = kwargs.pop("attribute", None)
    if path is None or kwargs:
        raise ProgramError("map() takes the name of a filter, or attribute=")
    reached = [_reach(budget, part, path) for part in parts]
    return [fallback if isinstance(part, Undefined) and fallback is not None else part for part in reached]


def _sieve(wanted: bool, by_attribute: bool) -> Callable[..., list[Value]]:
    def sieve(budget: Budget, value: Value, *args: Value) -> list[Value]:
        path, rest = (args[0], args[1:]) if by_attribute else (None, args)
        passes = test_named(rest[0]) if rest else (lambda _, part: bool(part))
        parts = elements(value, budget) if value else ()  # Jinja takes none for an empty list here
        budget.step(8 * len(parts))
        return [part for part in parts if bool(passes(budget, _reach(budget, part, path), *rest[1:])) is wanted]

    return sieve


def indent(budget: Budget, value: Value, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    pad = width if isinstance(width, str) else " " * min(int(width), _MAX_INDENT)
    if len(pad) > _MAX_INDENT or (isinstance(width, int) and width > _MAX_INDENT):
        raise ProgramError(f"indent: at most {_MAX_INDENT} wide")
    text = to_text(value, budget)
    lines = methods.splitlines(budget, text + "\n")
    budget.take(weight(text) + len(lines) * weight(pad))
    rest = [pad + line if line or blank else line for line in lines[1:]]
    return "\n".join([(pad if first else "") + lines[0], *rest])


def case(name: str) -> Callable[..., str]:
    function = getattr(str, name)

    def change(budget: Budget, value: Value) -> str:
        text = to_text(value, budget)
        budget.take(3 * weight(text))
        changed: str = function(text)
        return changed

    return change


def escape(budget: Budget, value: Value) -> str:
    text = to_text(value, budget)
    budget.take(6 * weight(text))
    return html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def rounded(budget: Budget, value: Value, precision: int = 0, method: str = "common") -> float:
    import math

    if not isinstance(value, int | float) or not isinstance(precision, int) or abs(precision) > 30:
        raise ProgramError("round() needs a number and up to 30 digits")
    if method == "common":
        return round(float(value), precision)
    scale = 10.0**precision
    return (math.ceil(value * scale) if method == "ceil" else math.floor(value * scale)) / scale


def _extreme(function: Callable[..., Value]) -> Callable[..., Value]:
    def extreme(budget: Budget, value: Value) -> Value:
        parts = elements(value, budget)
        budget.step(len(parts))
        return function(parts, key=lambda part: _sortable(part, False)) if parts else Undefined("item")

    return extreme


def total(budget: Budget, value: Value, attribute: Value = None, start: float = 0) -> Value:
    parts = elements(value, budget)
    budget.step(4 * len(parts))
    numbers = [_reach(budget, part, attribute) for part in parts]
    if not all(isinstance(number, int | float) for number in numbers):
        raise ProgramError("sum() needs numbers")
    return sum(numbers, start)


def printf(budget: Budget, value: Value, *args: Value) -> str:
    from nbllm.chat.operators import remainder

    return str(remainder(to_text(value, budget), args, budget))


_FILTERS: Mapping[str, Callable[..., Value]] = {
    "abs": lambda budget, value: abs(value),
    "capitalize": case("capitalize"),
    "count": length,
    "d": default,
    "default": default,
    "dictsort": dictsort,
    "e": escape,
    "escape": escape,
    "first": first,
    "float": as_float,
    "format": printf,
    "indent": indent,
    "int": as_int,
    "items": items,
    "join": join,
    "last": last,
    "length": length,
    "list": as_list,
    "lower": case("lower"),
    "map": map_each,
    "max": _extreme(max),
    "min": _extreme(min),
    "reject": _sieve(wanted=False, by_attribute=False),
    "rejectattr": _sieve(wanted=False, by_attribute=True),
    "replace": replace,
    "reverse": reverse,
    "round": rounded,
    "safe": as_text,
    "select": _sieve(wanted=True, by_attribute=False),
    "selectattr": _sieve(wanted=True, by_attribute=True),
    "sort": sort,
    "string": as_text,
    "sum": total,
    "title": case("title"),
    "tojson": tojson,
    "trim": trim,
    "unique": unique,
    "upper": case("upper"),
}


_TESTS: Mapping[str, Callable[..., Any]] = {
    "boolean": lambda budget, value: isinstance(value, bool),
    "callable": lambda budget, value: isinstance(value, Function),
    "defined": lambda budget, value: not isinstance(value, Undefined),
    "divisibleby": lambda budget, value, num: value % num == 0,
    "eq": lambda budget, value, other: equal(value, other, budget),
    "even": lambda budget, value: value % 2 == 0,
    "false": lambda budget, value: value is False,
    "float": lambda budget, value: isinstance(value, float),
    "in": lambda budget, value, container: COMPARISONS["in"](value, container, budget),
    "integer": lambda budget, value: isinstance(value, int) and not isinstance(value, bool),
    "iterable": lambda budget, value: isinstance(value, str | list | tuple | dict | Undefined),
    "lower": lambda budget, value: to_text(value, budget).islower(),
    "mapping": lambda budget, value: isinstance(value, dict),
    "none": lambda budget, value: value is None,
    "number": lambda budget, value: isinstance(value, int | float),
    "odd": lambda budget, value: value % 2 == 1,
    "sameas": lambda budget, value, other: value is other,
    "sequence": lambda budget, value: isinstance(value, str | list | tuple | dict | Undefined),
    "string": lambda budget, value: isinstance(value, str),
    "true": lambda budget, value: value is True,
    "undefined": lambda budget, value: isinstance(value, Undefined),
    "upper": lambda budget, value: to_text(value, budget).isupper(),
    "ne": lambda budget, value, other: not equal(value, other, budget),
    "lt": lambda budget, value, other: COMPARISONS["lt"](value, other, budget),
    "le": lambda budget, value, other: COMPARISONS["lteq"](value, other, budget),
    "gt": lambda budget, value, other: COMPARISONS["gt"](value, other, budget),
    "ge": lambda budget, value, other: COMPARISONS["gteq"](value, other, budget),
}
_TEST_ALIASES = {
    "==": "eq",
    "!=": "ne",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
    "equalto": "eq",
    "lessthan": "lt",
    "greaterthan": "gt",
}


def filter_named(name: Value) -> Callable[..., Value]:
    found = _FILTERS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ProgramError(f"it needs the filter {name!r}, which chat templates have no use for here")
    return found


def test_named(name: Value) -> Callable[..., Any]:
    found = _TESTS.get(_TEST_ALIASES.get(name, name)) if isinstance(name, str) else None
    if found is None:
        raise ProgramError(f"it needs the test {name!r}, which is not known")
    return found
