from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from nbllm.errors import ParameterError
from nbllm.frames.compare.methods import HOMES, ResultMethods, call
from tests.frames.compare.sample import results, two_models

if TYPE_CHECKING:
    import pandas as pd

_NAMES = sorted(set(HOMES) - {"score", "judge"})


class _Accessor(ResultMethods):
    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame


def _method(name: str, frame: pd.DataFrame | None = None) -> Any:
    return getattr(_Accessor(two_models() if frame is None else frame), name)


@pytest.mark.parametrize("name", _NAMES)
def test_a_method_has_the_signature_and_the_help_of_its_function(name: str) -> None:
    method, function = _method(name), getattr(import_module(HOMES[name]), name)
    _, *parameters = inspect.signature(function).parameters.values()
    assert list(inspect.signature(method).parameters.values()) == parameters
    assert inspect.getdoc(method) == inspect.getdoc(function)
    assert not {one.kind for one in parameters} & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize("name", _NAMES)
def test_a_method_on_its_class_has_help_too(name: str) -> None:
    assert f"{name}(self" in pydoc.plain(pydoc.render_doc(getattr(_Accessor, name)))


@pytest.mark.parametrize("name", sorted(HOMES))
def test_an_unknown_option_is_one_line(name: str) -> None:
    with pytest.raises(ParameterError, match=r"^colour: is not an option; "):
        call(two_models(), name, "small", colour="red")


@pytest.mark.parametrize(
    ("name", "args", "options", "message"),
    [
        pytest.param("pairwise", ("Which is right?",), {}, "b: is missing; write pairwise(a, b)", id="missing"),
        pytest.param("grid", (), {"vals": "x"}, "vals: is not an option; did you mean values?", id="near miss"),
        pytest.param("to_html", (), {"vals": "x"}, "vals: is not an option; did you mean values?", id="passed on"),
        pytest.param(
            "grid", ("model",), {}, "arguments: 'model' is one too many without a name; write its name, such as "
            "rows='model'", id="by place",
        ),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_one_line(name: str, args: Any, options: Any, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        _method(name)(*args, **options)
    assert str(caught.value) == message


def test_a_method_is_given_the_frame_and_the_arguments() -> None:
    frame = results({"score_x": 1.0}, {"model": "big", "score_x": 2.0})
    assert _method("summary", frame)("model", baseline="big")["score_x"].tolist() == [1, 2]
    assert "Question 1?" in _method("to_html")(max_rows=None)
    assert "Question 1?" not in _method("to_html")(max_rows=1)


def test_methods_import_nothing_before_they_are_looked_at() -> None:
    code = (
        "import sys; from nbllm.frames.compare.methods import ResultMethods; "
        "print([name for name in sys.modules if name == 'pandas' or name.startswith('nbllm.frames.compare.')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['nbllm.frames.compare.methods']"
