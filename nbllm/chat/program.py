"""A chat template as a program that can be run safely: statements over `expressions`, and the run's limits.

The tree comes from Jinja2's parser, with the settings that Hugging Face's templates are written for, and is evaluated
here rather than compiled by Jinja2. A template is a stranger's program in a model file, and neither engine that could
run it can be bounded from within a process: Jinja2 calls C code that no thread can interrupt, minijinja's fuel counts
instructions while one instruction may compare, print or concatenate values of any size. Here each operation pays from
a Budget before it works, so a run ends within about a second and a bounded amount of memory, whatever the template
does; and there is no attribute access, no import and no generated code that a template could escape through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nbllm.chat.budget import Budget, ProgramError
from nbllm.chat.expressions import Expression, Scope, compile_expression, compile_filter
from nbllm.chat.values import Function, Loop, Namespace, Undefined, Value, elements, to_text

Output = list[str]
Statement = Callable[[Scope, Output], "str | None"]  # the result asks the loop around to "break" or "continue"
_MAX_SOURCE = 256 * 1024
_MAX_CALLS = 40
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_CALL_STEPS, _ITERATION_STEPS = 12, 4  # what the machinery around a body takes, in closures
# Hugging Face's tag around what an assistant says: rendered as it stands, so a condition that holds, with the same
# white space rules, is the same.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(generation|endgeneration)(?=\s*[-+]?%\})")


class Program:
    """A parsed template, ready to run any number of times. Raises ProgramError if it cannot be parsed."""

    def __init__(self, source: str) -> None:
        if len(source) > _MAX_SOURCE:
            raise ProgramError(f"it is {len(source):,} characters long; at most {_MAX_SOURCE:,} are read")
        with _as_program_errors():
            self._run = _block(_parse(source).body)

    def run(self, budget: Budget, names: Mapping[str, Value]) -> str:
        """The text for these variables. Raises ProgramError, or RefusalError when the template itself says no."""
        out: Output = []
        with _as_program_errors():
            self._run(Scope(budget, None, dict(names)), out)
        return "".join(out)


@contextmanager
def _as_program_errors() -> Iterator[None]:
    """What the parser or a run raises is the template's fault: it chose what to do with which values.

    Any other exception is of a signal's handler (an alarm, say) that ran meanwhile, and goes on to whoever set it.
    """
    try:
        yield
    except ProgramError:
        raise
    except RecursionError:
        raise ProgramError("it is nested too deeply") from None
    except Exception as exc:
        if not isinstance(exc, _FAULTS) and not type(exc).__module__.startswith("jinja2."):
            raise
        raise ProgramError(str(exc) or type(exc).__name__, getattr(exc, "lineno", None)) from exc


def _parse(source: str) -> Any:
    import warnings

    from jinja2 import Environment

    def tag(match: re.Match[str]) -> str:
        return match.group(1) + ("if true" if match.group(2) == "generation" else "endif")

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a backslash in a template's text is no business of the user's
        return environment.parse(_GENERATION.sub(tag, source))


def _write(text: str, scope: Scope, out: Output) -> None:
    out.append(scope.budget.text(text))


def _cost(nodes: list[Any]) -> int:
    """How many closures running these statements once may call, without the repetitions of loops in them."""
    count = 0
    pending = list(nodes)
    while pending:
        count += 1
        pending.extend(pending.pop().iter_child_nodes())
    return count


def _block(nodes: list[Any]) -> Statement:
    statements = [(node.lineno, _compile_statement(node)) for node in nodes]

    def run(scope: Scope, out: Output) -> str | None:
        place = 0
        try:
            for place, statement in statements:  # noqa: B007 -- read where it fails
                leave = statement(scope, out)
                if leave is not None:
                    return leave
        except ProgramError as fault:
            fault.line = fault.line or place
            raise
        return None

    return run


def _compile_statement(node: Any) -> Statement:
    name = type(node).__name__
    compiler = _COMPILERS.get(name)
    if compiler is None:
        raise ProgramError(f"it uses {{% {name.lower()} %}}, which no chat template needs", node.lineno)
    return compiler(node)


def _output(node: Any) -> Statement:
    parts: list[str | Expression] = [
        part.data if type(part).__name__ == "TemplateData" else compile_expression(part) for part in node.nodes
    ]

    def run(scope: Scope, out: Output) -> None:
        for part in parts:
            _write(part if isinstance(part, str) else to_text(part(scope), scope.budget), scope, out)

    return run


def _if(node: Any) -> Statement:
    arms = [(compile_expression(arm.test), _block(arm.body)) for arm in (node, *node.elif_)]
    otherwise = _block(node.else_)

    def run(scope: Scope, out: Output) -> str | None:
        for test, body in arms:
            if test(scope):
                return body(scope, out)
        return otherwise(scope, out)

    return run


def _for(node: Any) -> Statement:
    if node.recursive:
        raise ProgramError("it uses a recursive loop, which no chat template needs", node.lineno)
    source, assign, body, otherwise = (
        compile_expression(node.iter),
        _target(node.target),
        _block(node.body),
        _block(node.else_),
    )
    wanted = None if node.test is None else compile_expression(node.test)
    cost = _ITERATION_STEPS + _cost([*node.body, node.target, *([] if node.test is None else [node.test])])

    def chosen(scope: Scope) -> Sequence[Value]:
        items = elements(source(scope), scope.budget)
        scope.budget.step(cost * len(items))
        if wanted is None:
            return items
        kept = []
        for item in items:
            inner = scope.inner({})
            assign(inner, item)
            if wanted(inner):
                kept.append(item)
        return kept

    def run(scope: Scope, out: Output) -> str | None:
        items = chosen(scope)
        loop = Loop(items)
        for loop.index0, item in enumerate(items):
            inner = scope.inner({"loop": loop})
            assign(inner, item)
            if body(inner, out) == "break":
                break
        return None if items else otherwise(scope, out)

    return run


def _target(node: Any) -> Callable[[Scope, Value], None]:
    """What assigns to the name, the names or the namespace attribute on the left of an assignment."""
    name = type(node).__name__
    if name == "Name":
        return lambda scope, value: scope.names.__setitem__(node.name, value)
    if name == "NSRef":
        return lambda scope, value: _namespace(scope, node.name).names.__setitem__(node.attr, value)
    targets = [_target(item) for item in node.items]

    def unpack(scope: Scope, value: Value) -> None:
        items = elements(value, scope.budget)
        if len(items) != len(targets):
            raise ProgramError(f"{len(items)} values do not fit {len(targets)} names")
        for target, item in zip(targets, items, strict=True):
            target(scope, item)

    return unpack


def _namespace(scope: Scope, name: str) -> Namespace:
    value = scope.lookup(name)
    if not isinstance(value, Namespace):
        raise ProgramError(f"{name!r} is not a namespace, so it cannot be changed")
    return value


def _assign(node: Any) -> Statement:
    assign, value = _target(node.target), compile_expression(node.node)
    return lambda scope, out: assign(scope, value(scope))


def _captured(body: Statement, scope: Scope) -> str:
    out: Output = []
    body(scope, out)
    return scope.budget.text("".join(out))


def _filtered(body: Statement, node: Any) -> Expression:
    """What a body writes, passed through the chain of filters of `{% filter %}` or a block `{% set %}`."""
    if node is None:
        return lambda scope: _captured(body, scope.inner({}))
    return compile_filter(node, _filtered(body, node.node))


def _assign_block(node: Any) -> Statement:
    assign, value = _target(node.target), _filtered(_block(node.body), node.filter)
    return lambda scope, out: assign(scope, value(scope))


def _filter_block(node: Any) -> Statement:
    value = _filtered(_block(node.body), node.filter)
    return lambda scope, out: _write(to_text(value(scope), scope.budget), scope, out)


def _with(node: Any) -> Statement:
    pairs = [(_target(name), compile_expression(value)) for name, value in zip(node.targets, node.values, strict=True)]
    body = _block(node.body)

    def run(scope: Scope, out: Output) -> str | None:
        inner = scope.inner({})
        for assign, value in pairs:
            assign(inner, value(scope))
        return body(inner, out)

    return run


def _macro(node: Any) -> Statement:
    names = [arg.name for arg in node.args]
    defaults = [compile_expression(value) for value in node.defaults]
    body, cost = _block(node.body), _cost(node.body) + len(names) + _CALL_STEPS

    def bind(scope: Scope, args: tuple[Value, ...], kwargs: dict[str, Value]) -> None:
        if len(args) > len(names) or not kwargs.keys() <= set(names[len(args) :]):
            raise ProgramError(f"the macro {node.name!r} takes {', '.join(names) or 'nothing'}")
        scope.names.update(zip(names, args, strict=False))
        scope.names.update(kwargs)
        first_default = len(names) - len(defaults)
        for index, name in enumerate(names):
            if name not in scope.names:
                scope.names[name] = Undefined(name) if index < first_default else defaults[index - first_default](scope)

    def define(scope: Scope, out: Output) -> None:
        def call(budget: Budget, /, *args: Value, **kwargs: Value) -> str:
            budget.step(cost)
            budget.depth += 1
            if budget.depth > _MAX_CALLS:
                raise ProgramError(f"its macros call each other more than {_MAX_CALLS} levels deep")
            inner = scope.inner({})
            bind(inner, args, kwargs)
            text = _captured(body, inner)
            budget.depth -= 1
            return text

        scope.names[node.name] = Function(node.name, call)

    return define


_COMPILERS: Mapping[str, Callable[[Any], Statement]] = {
    "Assign": _assign,
    "AssignBlock": _assign_block,
    "Break": lambda node: lambda scope, out: "break",
    "Continue": lambda node: lambda scope, out: "continue",
    "FilterBlock": _filter_block,
    "For": _for,
    "If": _if,
    "Macro": _macro,
    "Output": _output,
    "With": _with,
}
