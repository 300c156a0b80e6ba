"""A comparison as a table that a person can read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Literal, TypedDict

from nbllm.errors import ParameterError
from nbllm.frames.compare.arrangement import Names, arrange
from nbllm.frames.compare.htmlview import html_of
from nbllm.frames.compare.markdownview import markdown_of
from nbllm.frames.compare.shape import Shape
from nbllm.frames.compare.textview import text_of

if TYPE_CHECKING:
    import pandas as pd

Render = Literal["markdown", "text"]

_VIEWS: Mapping[str, Callable[[Shape], str]] = {
    "text/html": html_of,
    "text/markdown": markdown_of,
    "text/plain": text_of,
}


class GridOptions(TypedDict, total=False):
    """The options of `grid`, for what passes them on."""

    rows: Names
    cols: Names
    values: Names
    diff: bool
    render: Render
    max_rows: int | None


class Grid:
    """What a notebook shows of a comparison: HTML without a script, beside it Markdown and text.

    It keeps what it shows and not the frame, so a later change of the frame does not reach it.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    @property
    def html(self) -> str:
        return html_of(self._shape)

    @property
    def markdown(self) -> str:
        return markdown_of(self._shape)

    def __repr__(self) -> str:
        return text_of(self._shape)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        wanted = [kind for kind in _VIEWS if (not include or kind in include) and kind not in (exclude or ())]
        return {kind: _VIEWS[kind](self._shape) for kind in wanted}


def grid(
    frame: pd.DataFrame,
    *,
    rows: Names = "input",
    cols: Names = "model",
    values: Names = "response",
    diff: bool = False,
    render: Render = "markdown",
    max_rows: int | None = 50,
) -> Grid:
    """The answers of a comparison side by side.

    Rows of the frame that fall into one cell, as repeats do, stand below each other there, each with what tells it
    from the others: `t=0.8 #2`. Below an answer: passed or failed and the scores, its time, speed and tokens.

    Args:
        rows: the column, or the columns, whose values are the grid's row headers; `cols` likewise, and it may be
            empty. Several make headers of several levels.
        values: the column or columns to show.
        diff: mark the words by which each column differs from the first, and format nothing, so that all words show.
        render: "markdown" formats code, emphasis, headings and bullets of the answers; "text" shows them as they are.
        max_rows: of the grid; a line says how many more there are. None shows all.

    Raises:
        ParameterError: an option is wrong; a column's nearest name is suggested.
    """
    if render not in ("markdown", "text"):
        raise ParameterError("render", f'must be "markdown" or "text", not {render!r:.40}')
    if not isinstance(diff, bool):
        raise ParameterError("diff", f"must be True or False, not {diff!r:.40}")
    return Grid(
        Shape(arrange(frame, rows, cols, values, max_rows), is_markdown=render == "markdown" and not diff, is_diff=diff)
    )
