"""A template's operators, each with a bound on what it may build."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence

from nbllm.chat.budget import Budget, ProgramError, weight
from nbllm.chat.values import Undefined, Value, checked_key, elements, equal, kind, to_text

_MAX_BITS = 256
_DIRECTIVE = re.compile(r"%([sd%])|%")


def concat(values: Sequence[Value], budget: Budget) -> str:
    """`a ~ b`."""
    texts = [to_text(value, budget) for value in values]
    budget.take(sum(map(weight, texts)))
    return "".join(texts)


def add(left: Value, right: Value, budget: Budget) -> Value:
    if isinstance(left, str) and isinstance(right, str):
        budget.take(weight(left) + weight(right))
        return left + right
    if isinstance(left, list | tuple) and type(left) is type(right):
        budget.items(len(left) + len(right))
        return operator.add(left, right)
    return _arithmetic("+", operator.add, left, right)


def multiply(left: Value, right: Value, budget: Budget) -> Value:
    if isinstance(left, int) and isinstance(right, str | list | tuple):
        left, right = right, left
    if isinstance(left, str | list | tuple) and isinstance(right, int):
        each = weight(left) if isinstance(left, str) else 64 + 16 * len(left)
        budget.take(each * max(right, 1))
        return left * right
    return _arithmetic("*", operator.mul, left, right)


def remainder(left: Value, right: Value, budget: Budget) -> Value:
    if isinstance(left, str):
        return _printf(left, right if isinstance(right, tuple) else (right,), budget)
    return _arithmetic("%", operator.mod, left, right)


def power(left: Value, right: Value, budget: Budget) -> Value:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_BITS:
        raise ProgramError("it computes a number that is too large")
    return _arithmetic("**", operator.pow, left, right)


def _number(symbol: str, function: Callable[..., Value]) -> Callable[[Value, Value, Budget], Value]:
    return lambda left, right, budget: _arithmetic(symbol, function, left, right)


def _arithmetic(symbol: str, function: Callable[..., Value], left: Value, right: Value) -> Value:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        undefined = next((side for side in (left, right) if isinstance(side, Undefined)), None)
        if undefined is not None:
            raise ProgramError(f"{undefined.name!r} is undefined")
        raise ProgramError(f"{symbol!r} does not work between {kind(left)} and {kind(right)}")
    try:
        result = function(left, right)
    except ArithmeticError as exc:
        raise ProgramError(f"{symbol!r} failed: {exc}") from exc
    if isinstance(result, int) and result.bit_length() > _MAX_BITS:
        raise ProgramError("it computes a number that is too large")
    return result


def _printf(form: str, values: tuple[Value, ...], budget: Budget) -> str:
    """`"%s and %d" % values`, without the widths that would make a short form write a long text."""
    pending = list(values)

    def filled(match: re.Match[str]) -> str:
        directive = match.group(1)
        if directive == "%":
            return "%"
        if directive is None or not pending:
            raise ProgramError("a '%' form takes only %s, %d and %%, with a value for each")
        value = pending.pop(0)
        return to_text(int(value) if directive == "d" and isinstance(value, float) else value, budget)

    budget.take(weight(form) + sum(weight(to_text(value, budget)) for value in values))
    return _DIRECTIVE.sub(filled, form)


def contains(item: Value, container: Value, budget: Budget) -> bool:
    """`item in container`."""
    if isinstance(container, str):
        if not isinstance(item, str):
            raise ProgramError(f"a {kind(item)} cannot be looked for in a text")
        budget.take(len(container))
        return item in container
    if isinstance(container, dict):
        return checked_key(item) in container
    return any(equal(item, other, budget) for other in elements(container, budget))


def _ordered(symbol: str, function: Callable[..., bool]) -> Callable[[Value, Value, Budget], bool]:
    def compare(left: Value, right: Value, budget: Budget) -> bool:
        texts = isinstance(left, str) and isinstance(right, str)
        if not texts and not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise ProgramError(f"{symbol!r} does not work between {kind(left)} and {kind(right)}")
        if texts:
            budget.take(min(len(left), len(right)))
        return function(left, right)

    return compare


ARITHMETIC: Mapping[str, Callable[[Value, Value, Budget], Value]] = {
    "Add": add,
    "Sub": _number("-", operator.sub),
    "Mul": multiply,
    "Div": _number("/", operator.truediv),
    "FloorDiv": _number("//", operator.floordiv),
    "Mod": remainder,
    "Pow": power,
}
COMPARISONS: Mapping[str, Callable[[Value, Value, Budget], bool]] = {
    "eq": equal,
    "ne": lambda left, right, budget: not equal(left, right, budget),
    "lt": _ordered("<", operator.lt),
    "lteq": _ordered("<=", operator.le),
    "gt": _ordered(">", operator.gt),
    "gteq": _ordered(">=", operator.ge),
    "in": contains,
    "notin": lambda item, container, budget: not contains(item, container, budget),
}
