from __future__ import annotations

import inspect
from typing import Any

import pytest

from nbllm.errors import ParameterError
from nbllm.frames.compare.calls import check_arguments, told_in_one_line


def _contest(frame: str, a: int, b: int = 2, *, colour: str = "red") -> tuple[int, int, str]:
    """Compare two."""
    return a, b, colour


def _paint(*colours: str, **rest: str) -> None: ...


_told: Any = told_in_one_line(lambda name, value: "write it on the label" if name == "price" else None)(_contest)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        pytest.param((), {}, "frame: is missing; write _contest(frame, a)", id="nothing"),
        pytest.param(("x",), {"b": 1}, "a: is missing; write _contest(frame, a)", id="one missing"),
        pytest.param(("x", 1), {"color": "red"}, "color: is not an option; did you mean colour?", id="near miss"),
        pytest.param(("x", 1), {"zz": 1}, "zz: is not an option; the options are a, b, colour, frame", id="unknown"),
        pytest.param(("x", 1), {"price": 1}, "price: write it on the label", id="belongs elsewhere"),
        pytest.param(("x", 1), {"a": 1}, "a: is given twice, by its place and by its name", id="twice"),
        pytest.param(
            ("x", 1, 2, "red"), {}, "arguments: 'red' is one too many without a name; write its name, such as "
            "colour='red'", id="too many",
        ),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_one_line(args: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        _told(*args, **options)
    assert str(caught.value) == message


def test_arguments_that_fit_are_passed_on() -> None:
    assert _told("x", b=3, a=1) == (1, 3, "red")


def test_a_checked_function_looks_like_itself() -> None:
    assert inspect.signature(_told) == inspect.signature(_contest)
    assert (_told.__name__, _told.__doc__) == ("_contest", "Compare two.")


def test_the_object_of_a_method_is_not_asked_for() -> None:
    with pytest.raises(ParameterError, match=r"write _contest\(a\)$"):
        check_arguments(_contest, (), {}, is_method=True)
    with pytest.raises(ParameterError, match=r"the options are a, b, colour$"):
        check_arguments(_contest, (1,), {"zz": 1}, is_method=True)
    check_arguments(_contest, (1,), {}, is_method=True)


def test_a_function_that_takes_anything_is_given_it() -> None:
    check_arguments(_paint, ("red", "blue"), {"price": "1"})
