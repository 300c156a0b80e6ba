"""Arguments that do not fit, told in one line: Python's own TypeError comes with a traceback and no near miss."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from nbllm.core import unknown_option
from nbllm.errors import ParameterError

Advice = Callable[[str, Any], str | None]
"""What to say of an argument that is not known, from its name and value; None where there is nothing special to say."""
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def told_in_one_line(advice: Advice) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Have a function's arguments checked by `check_arguments` before it is called."""

    def decorated(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        @functools.wraps(function)
        def called(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
            check_arguments(function, args, options, advice)
            return function(*args, **options)

        return called

    return decorated


def check_arguments(
    function: Callable[..., Any],
    args: Sequence[Any],
    options: Mapping[str, Any],
    advice: Advice | None = None,
    *,
    is_method: bool = False,
) -> None:
    """Check that a function can be called so.

    Args:
        is_method: leave its first parameter out, which the caller does not write.

    Raises:
        ParameterError: an argument is missing, unknown, given twice or one too many.
    """
    parameters = dict(list(inspect.signature(function).parameters.items())[is_method:])
    places = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    names = [*places, *(name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY)]
    takes_more = {one.kind for one in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in takes_more:
        for name, value in options.items():
            if name not in names:
                raise ParameterError(name, (advice and advice(name, value)) or unknown_option(name, names))
    if inspect.Parameter.VAR_POSITIONAL not in takes_more and len(args) > len(places):
        _refuse_places(args[len(places)], places, names)
    for name in places[: len(args)]:
        if name in options:
            raise ParameterError(name, "is given twice, by its place and by its name")
    needed = [name for name in names if parameters[name].default is inspect.Parameter.empty]
    for name in needed:
        if name not in options and name not in places[: len(args)]:
            raise ParameterError(name, f"is missing; write {function.__name__}({', '.join(needed)})")


def _refuse_places(value: Any, places: Sequence[str], names: Sequence[str]) -> None:
    left = names[len(places) :]
    hint = f"write its name, such as {left[0]}={value!r:.60}" if left else "leave it out"
    raise ParameterError("arguments", f"{value!r:.60} is one too many without a name; {hint}")
