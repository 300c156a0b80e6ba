"""Score against speed, one point a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import matplotlib
import pytest

from nbllm.errors import ParameterError, UnsupportedError
from nbllm.frames.compare.plot import plot
from tests.frames.compare.sample import results, two_models

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@pytest.fixture(autouse=True)
def no_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: pytest.fail("shown"))
    yield
    plt.close("all")


def points(axes: Axes) -> list[tuple[float, float]]:
    drawn: list[Any] = list(axes.containers)
    return [(float(bars.lines[0].get_xdata()[0]), float(bars.lines[0].get_ydata()[0])) for bars in drawn]


def labels(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text().strip() for text in legend.get_texts()]


def test_point_of_each_model_is_its_means_with_standard_errors() -> None:
    frame = results(
        {"model": "a", "score_x": 1, "tokens_per_s": 10.0},
        {"model": "a", "score_x": 0, "tokens_per_s": 30.0},
        {"model": "b", "score_x": 1, "tokens_per_s": 50.0},
        {"model": "b", "score_x": None, "tokens_per_s": 1000.0},
    )
    axes = plot(frame)
    assert points(axes) == [(20.0, 0.5), (50.0, 1.0)]
    assert labels(axes) == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("tokens_per_s", "mean score_x")
    drawn: Any = axes.containers[0]
    sideways, _ = drawn.lines[2]
    assert [float(end[0]) for end in sideways.get_segments()[0]] == pytest.approx([10.0, 30.0])


def test_parameters_that_vary_make_points_of_their_own() -> None:
    frame = results(*({"param_temperature": t, "param_top_p": 1.0, "score_x": t} for t in (0.0, 1.0)))
    assert labels(plot(frame)) == ["small t=0", "small t=1"]


def test_share_that_passed_is_the_score_where_there_is_none() -> None:
    axes = plot(results({"passed": True}, {"passed": False}), x="output_tokens")
    assert points(axes) == [(56.0, 0.5)]


def test_score_may_be_named_without_its_prefix() -> None:
    assert plot(results({"score_a": 1, "score_b": 0}), y="b").get_ylabel() == "mean score_b"


def test_axes_that_are_given_are_drawn_into() -> None:
    import matplotlib.pyplot as plt

    axes = plt.subplots()[1]
    assert plot(results({"score_x": 1}), ax=axes) is axes


def test_model_with_a_name_that_matplotlib_would_read_is_drawn_as_it_is() -> None:
    axes = plot(results({"model": "_$\\frac", "score_x": 1}, {"model": "$", "score_x": 1}))
    axes.figure.canvas.draw()
    assert labels(axes) == ["_$\\frac", "$"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({}, "y: there is no score", id="no_score"),
        pytest.param({"y": "passed", "x": "tokens_per_sec"}, "x: no column 'tokens_per_sec': did you mean", id="x"),
        pytest.param({"y": "response"}, "y: 'response' holds something else than numbers", id="texts"),
        pytest.param({"y": "passed"}, "y: no row has both 'tokens_per_s' and 'passed'", id="no_numbers"),
    ],
)
def test_wrong_column_gets_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        plot(two_models(), **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'nbllm\[plot\]'"):
        plot(results({"score_x": 1}))
