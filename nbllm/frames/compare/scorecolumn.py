"""Which column says how good an answer is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbllm.errors import ParameterError
from nbllm.frames.compare.columns import SCORE, no_column, score_columns

if TYPE_CHECKING:
    import pandas as pd


def score_column(frame: pd.DataFrame, param: str, name: str | None) -> str:
    """The column that was named, with or without its `score_`; without a name the only score, else `passed`.

    Raises:
        ParameterError: for the option `param`: there is no such column, none at all, or more than one.
    """
    scores = score_columns(frame)
    if name is not None:
        return _named(frame, param, name, scores)
    if len(scores) > 1:
        raise ParameterError(param, f"there are several scores: name one of {', '.join(map(repr, scores))[:300]}")
    if scores:
        return scores[0]
    if "passed" in frame.columns and frame["passed"].notna().any():
        return "passed"
    raise ParameterError(
        param,
        'there is no score: compare with scorers={"equals": "equals"}, or add a column whose name starts with score_',
    )


def _named(frame: pd.DataFrame, param: str, name: str, scores: list[str]) -> str:
    known = [str(column) for column in frame.columns]
    for candidate in (name, f"{SCORE}{name}"):
        if candidate in known:
            return candidate
    raise no_column(param, name, [*scores, *known])
