"""The values that a template handles beside Python's own text, numbers, lists and dicts.

A template reaches nothing else: no Python attribute is ever looked up by a name that a template gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbllm.chat.budget import Budget, ProgramError, weight

Value = Any
_MAX_DEPTH = 100
_CONTAINER_STEPS = 8  # what it takes to look into one, in steps


class Undefined:
    """What a name, key or index that is not there evaluates to: empty text, an empty list, and false."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "Undefined"


class Namespace:
    """The one value that a template can change: `{% set ns.total = ... %}`."""

    __slots__ = ("names",)

    def __init__(self, names: Mapping[str, Value]) -> None:
        self.names = dict(names)


class Function:
    """Something a template can call: a global, a macro, or a method bound to its value."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., Value]) -> None:
        self.name = name
        self.call = call  # takes the Budget first


class Loop:
    """The `loop` of a running `for`."""

    __slots__ = ("changed_to", "index0", "items")

    def __init__(self, items: Sequence[Value]) -> None:
        self.items = items
        self.index0 = 0
        self.changed_to: Value = None

    def attribute(self, name: str) -> Value:
        reader = _LOOP_ATTRIBUTES.get(name)
        return Undefined(name) if reader is None else reader(self)

    def neighbour(self, offset: int, name: str) -> Value:
        index = self.index0 + offset
        return self.items[index] if 0 <= index < len(self.items) else Undefined(name)

    def cycle(self, budget: Budget, *options: Value) -> Value:
        if not options:
            raise ProgramError("loop.cycle() needs something to cycle through")
        return options[self.index0 % len(options)]

    def changed(self, budget: Budget, *values: Value) -> bool:
        same = self.changed_to is not None and equal(self.changed_to, values, budget)
        self.changed_to = values
        return not same


_LOOP_ATTRIBUTES: Mapping[str, Callable[[Loop], Value]] = {
    "index": lambda loop: loop.index0 + 1,
    "index0": lambda loop: loop.index0,
    "revindex": lambda loop: len(loop.items) - loop.index0,
    "revindex0": lambda loop: len(loop.items) - loop.index0 - 1,
    "first": lambda loop: loop.index0 == 0,
    "last": lambda loop: loop.index0 == len(loop.items) - 1,
    "length": lambda loop: len(loop.items),
    "depth": lambda loop: 1,  # only a recursive loop is deeper
    "depth0": lambda loop: 0,
    "previtem": lambda loop: loop.neighbour(-1, "previtem"),
    "nextitem": lambda loop: loop.neighbour(1, "nextitem"),
    "cycle": lambda loop: Function("cycle", loop.cycle),
    "changed": lambda loop: Function("changed", loop.changed),
}


def kind(value: Value) -> str:
    """What to call a value in a message to a person."""
    return "undefined" if isinstance(value, Undefined) else type(value).__name__.lower()


def checked_key(key: Value) -> Value:
    """Only scalars are keys: the hash of nested tuples can take exponential time."""
    if key is None or isinstance(key, str | int | float):
        return key
    raise ProgramError(f"a {kind(key)} cannot be a key")


def elements(value: Value, budget: Budget) -> Sequence[Value]:
    """What a loop over `value` goes through."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Undefined):
        return ()
    if isinstance(value, dict):
        budget.items(len(value))
        return list(value)
    if isinstance(value, str):
        budget.take(96 * len(value))
        budget.step(len(value) >> 3)
        return list(value)
    raise ProgramError(f"a {kind(value)} cannot be looped over")


def equal(left: Value, right: Value, budget: Budget) -> bool:
    """`==`, paid for node by node: lists that share their parts can take exponential time to compare."""
    if isinstance(left, str) and isinstance(right, str):
        budget.take(min(len(left), len(right)))
    elif isinstance(left, list | tuple | dict) or isinstance(right, list | tuple | dict):
        budget.step(_CONTAINER_STEPS)
        return _equal_containers(left, right, budget)
    elif isinstance(left, Undefined) and isinstance(right, Undefined):
        return True
    budget.step(1)
    return bool(left == right)


def _equal_containers(left: Value, right: Value, budget: Budget) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(item, right[key], budget) for key, item in left.items())
    if isinstance(left, dict) or type(left) is not type(right) or len(left) != len(right):
        return False
    return all(equal(a, b, budget) for a, b in zip(left, right, strict=True))


def to_text(value: Value, budget: Budget) -> str:
    """What `{{ value }}` writes."""
    if isinstance(value, str):
        return value
    if isinstance(value, Undefined):
        return ""
    if value is None or isinstance(value, int | float):
        return str(value)
    pay_for_writing(value, budget)
    return str(value)


def pay_for_writing(value: Value, budget: Budget, indent: int = 0, depth: int = 0) -> None:
    """Pay for every node that a printed or JSON form of `value` will have, escapes and indentation included."""
    if depth > _MAX_DEPTH:
        raise ProgramError(f"it writes a value that is nested more than {_MAX_DEPTH} levels deep")
    budget.step(_CONTAINER_STEPS)
    budget.take(32 + indent * depth)
    if isinstance(value, str):
        budget.take(6 * weight(value))
    elif isinstance(value, list | tuple):
        for item in value:
            pay_for_writing(item, budget, indent, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            pay_for_writing(key, budget, indent, depth + 1)
            pay_for_writing(item, budget, indent, depth + 1)
    elif isinstance(value, Namespace | Function | Loop):
        raise ProgramError(f"it writes a {kind(value)}, which is not text")
