"""The functions about a comparison, as methods of `df.llm`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_COMPARE = "nbllm.frames.compare"
HOMES = {
    "grid": f"{_COMPARE}.grid",
    "summary": f"{_COMPARE}.summary",
    "score": f"{_COMPARE}.scoring",
    "judge": f"{_COMPARE}.judging",
    "pairwise": f"{_COMPARE}.judging",
    "differences": f"{_COMPARE}.summary",
    "confusion": f"{_COMPARE}.golden",
    "agreement": f"{_COMPARE}.golden",
    "plot": f"{_COMPARE}.plot",
    "to_csv": f"{_COMPARE}.export",
    "to_html": f"{_COMPARE}.export",
    "to_jsonl": f"{_COMPARE}.export",
}
"""The module of each; it is a function of that name, whose first argument is the frame."""


def call(frame: pd.DataFrame, name: str, /, *args: Any, **options: Any) -> Any:
    """Call one of them.

    Raises:
        ParameterError: the arguments do not fit, or as the function says.
    """
    from nbllm.frames.compare.calls import check_arguments

    function = _function(name)
    check_arguments(function, args, options, is_method=True)
    return function(frame, *args, **options)


class ResultMethod:
    """One of them as a method with its own signature and help. Its module is imported when it is first looked at."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._made: Callable[..., Any] | None = None

    def __get__(self, accessor: ResultMethods | None, owner: type | None = None) -> Callable[..., Any]:
        if self._made is None:
            self._made = _method(self._name)
        return self._made if accessor is None else MethodType(self._made, accessor)


class ResultMethods:
    """What `df.llm` has of a comparison, besides the methods that are about rows as well."""

    _frame: pd.DataFrame

    grid = ResultMethod()
    summary = ResultMethod()
    pairwise = ResultMethod()
    differences = ResultMethod()
    agreement = ResultMethod()
    confusion = ResultMethod()
    plot = ResultMethod()
    to_csv = ResultMethod()
    to_html = ResultMethod()
    to_jsonl = ResultMethod()

    def _of_results(self, name: str, /, *args: Any, **options: Any) -> Any:
        return call(self._frame, name, *args, **options)


def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(import_module(HOMES[name]), name)
    return function


def _method(name: str) -> Callable[..., Any]:
    from functools import update_wrapper
    from inspect import Parameter, signature

    def method(self: ResultMethods, /, *args: Any, **options: Any) -> Any:
        return self._of_results(name, *args, **options)

    function = _function(name)
    whole = signature(function)
    _, *rest = whole.parameters.values()
    update_wrapper(method, function)
    shown = whole.replace(parameters=[Parameter("self", Parameter.POSITIONAL_OR_KEYWORD), *rest])
    method.__signature__ = shown  # type: ignore[attr-defined]
    return method
