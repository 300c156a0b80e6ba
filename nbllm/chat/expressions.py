"""Jinja expressions compiled to Python closures.

Jinja2's parser gives the syntax tree; nothing of Jinja2 runs it. Each closure takes the Scope it is evaluated in. A
closure's own time is paid by the statement that runs it, only what depends on the size of values is paid here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nbllm.chat.access import get_attribute, get_item, get_slice
from nbllm.chat.budget import Budget, ProgramError
from nbllm.chat.filters import filter_named, test_named
from nbllm.chat.operators import ARITHMETIC, COMPARISONS, concat
from nbllm.chat.values import Function, Undefined, Value, checked_key, kind


class Scope:
    """The names that a piece of a template sees; `set` writes into the innermost."""

    __slots__ = ("budget", "names", "parent")

    def __init__(self, budget: Budget, parent: Scope | None, names: dict[str, Value]) -> None:
        self.budget = budget
        self.parent = parent
        self.names = names

    def inner(self, names: dict[str, Value]) -> Scope:
        return Scope(self.budget, self, names)

    def lookup(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return Undefined(name)


Expression = Callable[[Scope], Value]


def compile_expression(node: Any) -> Expression:
    """Turn a node of Jinja2's syntax tree into a closure; ProgramError if the node is not one for chat templates."""
    name = type(node).__name__
    if name in ARITHMETIC:
        return _arithmetic(node, ARITHMETIC[name])
    compiler = _COMPILERS.get(name)
    if compiler is None:
        raise ProgramError(f"it uses {name.lower()!r}, which chat templates have no use for", node.lineno)
    return compiler(node)


def compile_arguments(node: Any) -> Callable[[Scope], tuple[list[Value], dict[str, Value]]]:
    """The arguments of a call, a filter or a test."""
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise ProgramError("it calls something with * or **, which chat templates have no use for", node.lineno)
    positional = [compile_expression(arg) for arg in node.args]
    named = [(pair.key, compile_expression(pair.value)) for pair in node.kwargs]

    def evaluate(scope: Scope) -> tuple[list[Value], dict[str, Value]]:
        return [arg(scope) for arg in positional], {key: value(scope) for key, value in named}

    return evaluate


def _arithmetic(node: Any, function: Callable[[Value, Value, Budget], Value]) -> Expression:
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda scope: function(left(scope), right(scope), scope.budget)


def _const(node: Any) -> Expression:
    value = node.value
    if isinstance(value, int) and value.bit_length() > 256:
        raise ProgramError("it has a number that is too large", node.lineno)
    return lambda scope: value


def _name(node: Any) -> Expression:
    name = node.name
    return lambda scope: scope.lookup(name)


def _sequence(node: Any) -> Expression:
    parts = [compile_expression(item) for item in node.items]
    kind_of = tuple if type(node).__name__ == "Tuple" else list

    def build(scope: Scope) -> Value:
        scope.budget.items(len(parts))
        return kind_of([part(scope) for part in parts])

    return build


def _mapping(node: Any) -> Expression:
    pairs = [(compile_expression(pair.key), compile_expression(pair.value)) for pair in node.items]

    def build(scope: Scope) -> Value:
        scope.budget.items(8 * len(pairs))
        return {checked_key(key(scope)): value(scope) for key, value in pairs}

    return build


def _condition(node: Any) -> Expression:
    test, then = compile_expression(node.test), compile_expression(node.expr1)
    otherwise = (lambda scope: Undefined("else")) if node.expr2 is None else compile_expression(node.expr2)
    return lambda scope: then(scope) if test(scope) else otherwise(scope)


def _and(node: Any) -> Expression:
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda scope: left(scope) and right(scope)


def _or(node: Any) -> Expression:
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda scope: left(scope) or right(scope)


def _not(node: Any) -> Expression:
    operand = compile_expression(node.node)
    return lambda scope: not operand(scope)


def _sign(node: Any) -> Expression:
    operand = compile_expression(node.node)
    factor = -1 if type(node).__name__ == "Neg" else 1

    def signed(scope: Scope) -> Value:
        value = operand(scope)
        if not isinstance(value, int | float):
            raise ProgramError(f"a {kind(value)} has no sign")
        return value * factor

    return signed


def _concat(node: Any) -> Expression:
    parts = [compile_expression(part) for part in node.nodes]
    return lambda scope: concat([part(scope) for part in parts], scope.budget)


def _compare(node: Any) -> Expression:
    first = compile_expression(node.expr)
    operands = [(COMPARISONS[operand.op], compile_expression(operand.expr)) for operand in node.ops]

    def compare(scope: Scope) -> bool:
        left = first(scope)
        for holds, operand in operands:
            right = operand(scope)
            if not holds(left, right, scope.budget):
                return False
            left = right
        return True

    return compare


def _getattr(node: Any) -> Expression:
    target, name = compile_expression(node.node), node.attr
    return lambda scope: get_attribute(target(scope), name)


def _getitem(node: Any) -> Expression:
    target = compile_expression(node.node)
    if type(node.arg).__name__ == "Slice":
        return _slice(target, node.arg)
    key = compile_expression(node.arg)
    return lambda scope: get_item(target(scope), key(scope))


def _slice(target: Expression, node: Any) -> Expression:
    start, stop, step = (
        (lambda scope: None) if bound is None else compile_expression(bound)
        for bound in (node.start, node.stop, node.step)
    )
    return lambda scope: get_slice(target(scope), (start(scope), stop(scope), step(scope)), scope.budget)


def _call(node: Any) -> Expression:
    target, arguments = compile_expression(node.node), compile_arguments(node)

    def call(scope: Scope) -> Value:
        function = target(scope)
        if not isinstance(function, Function):
            named = f"{function.name!r} is undefined" if isinstance(function, Undefined) else f"a {kind(function)}"
            raise ProgramError(f"{named} and cannot be called")
        args, kwargs = arguments(scope)
        return function.call(scope.budget, *args, **kwargs)

    return call


def _filter(node: Any) -> Expression:
    if node.node is None:
        raise ProgramError("it has a filter with nothing to work on", node.lineno)
    return compile_filter(node, compile_expression(node.node))


def compile_filter(node: Any, target: Expression) -> Expression:
    """A filter over what `target` gives; an unknown one fails only if it is reached, as in Jinja."""
    name, arguments = node.name, compile_arguments(node)

    def apply(scope: Scope) -> Value:
        args, kwargs = arguments(scope)
        return filter_named(name)(scope.budget, target(scope), *args, **kwargs)

    return apply


def _test(node: Any) -> Expression:
    target, name, arguments = compile_expression(node.node), node.name, compile_arguments(node)

    def apply(scope: Scope) -> bool:
        args, kwargs = arguments(scope)
        return bool(test_named(name)(scope.budget, target(scope), *args, **kwargs))

    return apply


_COMPILERS: Mapping[str, Callable[[Any], Expression]] = {
    "And": _and,
    "Call": _call,
    "Compare": _compare,
    "Concat": _concat,
    "CondExpr": _condition,
    "Const": _const,
    "Dict": _mapping,
    "Filter": _filter,
    "Getattr": _getattr,
    "Getitem": _getitem,
    "List": _sequence,
    "Name": _name,
    "Neg": _sign,
    "Not": _not,
    "Or": _or,
    "Pos": _sign,
    "Test": _test,
    "Tuple": _sequence,
}
