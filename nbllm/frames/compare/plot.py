"""How good each model is against how fast it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.errors import ParameterError, UnsupportedError
from nbllm.frames.compare.columns import no_column, param_columns, require_results
from nbllm.frames.compare.entries import labelled
from nbllm.frames.compare.scorecolumn import score_column

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class _Point(NamedTuple):
    label: str
    x: float
    y: float
    x_error: float
    y_error: float


def plot(frame: pd.DataFrame, x: str = "tokens_per_s", y: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw one point for each model and its parameters: the mean score over the mean speed, with standard errors.

    It shows nothing by itself: a notebook shows the figure of the cell, a script calls `plt.show()`.

    Args:
        x: a column of numbers, as `tokens_per_s`, `duration_ms`, `output_tokens`.
        y: the score; without it the only one, else the share that `passed`.
        ax: to draw into, instead of a figure of its own.

    Raises:
        ParameterError: a column is not there, or holds no number.
        UnsupportedError: matplotlib is not installed.
    """
    require_results(frame)
    _check_x(frame, x)
    score = score_column(frame, "y", y)
    points = _points(frame, x, score)
    axes = ax if ax is not None else _axes()
    drawn = [
        axes.errorbar(point.x, point.y, xerr=point.x_error, yerr=point.y_error, fmt="o", capsize=3) for point in points
    ]
    # matplotlib leaves out what begins with an underscore, and reads what has dollars as maths
    legend = axes.legend(drawn, [f" {point.label}" for point in points])
    for text in [*legend.get_texts(), axes.set_xlabel(x), axes.set_ylabel(f"mean {score}")]:
        text.set_parse_math(False)
    axes.margins(0.2)
    return axes


def _axes() -> Axes:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UnsupportedError("a plot needs matplotlib: pip install 'nbllm[plot]'") from error
    return plt.subplots()[1]


def _check_x(frame: pd.DataFrame, x: str) -> None:
    if x in frame.columns:
        return
    raise no_column("x", x, frame.columns)


def _points(frame: pd.DataFrame, x: str, y: str) -> list[_Point]:
    """The means of the rows that have both numbers."""
    groups = ["model", *(name for name in param_columns(frame) if frame[name].nunique(dropna=False) > 1)]
    part = frame[groups].assign(**{"__x": _numbers(frame, "x", x), "__y": _numbers(frame, "y", y)})
    part = part.dropna(subset=["__x", "__y"])
    if part.empty:
        raise ParameterError("y", f"no row has both {x!r} and {y!r}")
    grouped = part.groupby(groups, sort=False, dropna=False, observed=True)[["__x", "__y"]]
    means, errors = grouped.mean(), grouped.sem().fillna(0.0)  # of one answer there is no error to know
    points = []
    for key, mean, error in zip(means.index, means.to_numpy(), errors.to_numpy(), strict=True):
        values = key if isinstance(key, tuple) else (key,)
        label = " ".join(labelled(name, value) for name, value in zip(groups, values, strict=True))
        points.append(_Point(label, *map(float, mean), *map(float, error)))
    return points


def _numbers(frame: pd.DataFrame, param: str, name: str) -> Any:
    import pandas as pd

    try:
        return pd.to_numeric(frame[name]).astype("Float64").astype("float64")
    except (TypeError, ValueError) as error:
        raise ParameterError(param, f"{name!r} holds something else than numbers") from error
