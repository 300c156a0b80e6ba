"""Scores that are added to a comparison after it has run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbllm.errors import ParameterError
from nbllm.frames.asks import RunOptions
from nbllm.frames.compare.columns import require_results
from nbllm.frames.compare.embedding import with_similarity
from nbllm.frames.compare.golden import gold_of_rows
from nbllm.frames.compare.scorers import scored, scorers_of
from nbllm.frames.using import model_of

if TYPE_CHECKING:
    import pandas as pd


def score(
    frame: pd.DataFrame,
    scorers: Any,
    name: str | None = None,
    *,
    expected: str | None = None,
    model: Any = None,
    cache: Any = True,
    progress: Any = None,
) -> pd.DataFrame:
    """A copy of a comparison with more scores.

    Args:
        scorers: as in `nbllm.compare`: see `nbllm.frames.compare.scorers`.
        name: of the score, when it is a single one.
        expected: the column of right answers; None is what the comparison was given.
        model: whose embeddings a similarity is measured with; None is the one that was loaded last, or the default.

    Raises:
        ParameterError: it is no comparison, or an argument is wrong.
    """
    require_results(frame)
    gold = gold_of_rows(frame, expected)
    wanted = {name: scorers} if name is not None else scorers
    made = scorers_of(wanted, has_expected=any(want is not None for want in gold))
    if not made:
        raise ParameterError("scorers", "is missing: give a name such as 'length', or a function of the answer's text")
    result = scored(frame, made, gold)
    options = RunOptions(cache=cache, progress=progress)
    for scorer in [scorer for scorer in made if scorer.measure is None]:
        result = with_similarity(model_of(model), result, scorer, gold, options)
    return result
