"""Whether new code still does what the old did, as far as its syntax tells: a model that is asked for a docstring may
leave out a line, or "improve" one. Both are known to be valid Python."""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Callable

from nbllm.errors import InvalidRequestError

_HAS_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def check_only_docstrings(old: str, new: str, transform: Callable[[str], str]) -> None:
    """Raises InvalidRequestError if anything but docstrings and comments is different."""
    if _statements(old, transform) != _statements(new, transform):
        raise InvalidRequestError(
            "the answer changes more than docstrings, so the cell stays as it is; run it again, or try another model"
        )


def check_nothing_lost(old: str, new: str, transform: Callable[[str], str]) -> None:
    """Raises InvalidRequestError if a statement of the old code is missing from the new."""
    if Counter(_statements(old, transform)) - Counter(_statements(new, transform)):
        raise InvalidRequestError(
            "the answer changes the code that it should test, so the cell stays as it is; run it again, or try another "
            "model"
        )


def _statements(code: str, transform: Callable[[str], str]) -> list[str]:
    """The statements of a cell without their docstrings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = ast.parse(transform(code))
    for node in ast.walk(module):
        if isinstance(node, _HAS_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return [ast.dump(_without_pass(statement)) for statement in module.body if not isinstance(statement, ast.Pass)]


def _without_pass(statement: ast.stmt) -> ast.stmt:
    """A body of `pass` may become a docstring alone, and the other way round."""
    for node in ast.walk(statement):
        if isinstance(node, _HAS_DOCSTRING):
            node.body = [part for part in node.body if not isinstance(part, ast.Pass)] or [ast.Pass()]
    return statement
