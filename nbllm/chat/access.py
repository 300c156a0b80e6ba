"""How a template reads the parts of a value: `a.b`, `a[b]` and `a[b:c]`."""

from __future__ import annotations

from nbllm.chat.budget import Budget, ProgramError, weight
from nbllm.chat.methods import method
from nbllm.chat.values import Loop, Namespace, Undefined, Value, checked_key, kind


def get_attribute(value: Value, name: str) -> Value:
    """`value.name`: a listed method, else the item of a mapping."""
    if isinstance(value, Undefined):
        raise ProgramError(f"{value.name!r} is undefined, so it has no {name!r}")
    bound = method(value, name)
    if bound is not None:
        return bound
    if isinstance(value, dict):
        if name in value:
            return value[name]
    elif isinstance(value, Namespace):
        return value.names.get(name, Undefined(name))
    elif isinstance(value, Loop):
        return value.attribute(name)
    if name.startswith("_"):
        raise ProgramError(f"it reaches for {name!r}, which no chat template needs")
    return Undefined(name)


def get_item(value: Value, key: Value) -> Value:
    """`value[key]`: an item, else the attribute of that name."""
    if isinstance(value, dict):
        if checked_key(key) in value:
            return value[key]
    elif isinstance(value, list | tuple | str) and isinstance(key, int):
        return value[key] if -len(value) <= key < len(value) else Undefined(str(key))
    if isinstance(key, str):
        return get_attribute(value, key)
    if isinstance(value, Undefined):
        raise ProgramError(f"{value.name!r} is undefined, so it has no items")
    return Undefined(kind(key))


def get_slice(value: Value, bounds: tuple[Value, Value, Value], budget: Budget) -> Value:
    if not isinstance(value, str | list | tuple):
        raise ProgramError(f"a {kind(value)} cannot be sliced")
    for bound in bounds:
        if bound is not None and not isinstance(bound, int):
            raise ProgramError(f"a slice needs whole numbers, not a {kind(bound)}")
    if bounds[2] == 0:
        raise ProgramError("a slice cannot have a step of 0")
    budget.take(weight(value) if isinstance(value, str) else 64 + 8 * len(value))
    return value[slice(*bounds)]
