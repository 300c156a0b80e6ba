"""What a worker raises is what the client sees: errors survive the way between processes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from nbllm import errors
from nbllm.errors import ContextOverflowError, NbllmError, ParameterError
from nbllm.frames.templates import TemplateError

_MADE: dict[type[NbllmError], tuple[Any, ...]] = {
    ParameterError: ("model", "must be a name"),
    TemplateError: ("prompt", "there is no column 'a'"),
    ContextOverflowError: (5000, 4096, "wait"),
}


def _kinds(kind: type[NbllmError] = NbllmError) -> Iterator[type[NbllmError]]:
    yield kind
    for sub in kind.__subclasses__():
        if sub.__module__ in (errors.__name__, TemplateError.__module__):
            yield from _kinds(sub)


@pytest.mark.parametrize("kind", dict.fromkeys(_kinds()), ids=lambda kind: kind.__name__)
def test_errors_survive_pickling(kind: type[NbllmError]) -> None:
    error = kind(*_MADE.get(kind, ("it is so\nand so",)))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
    assert again.args
