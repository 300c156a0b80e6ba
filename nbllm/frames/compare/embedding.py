"""The similarity of answers to what was expected, as one model's embeddings have it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbllm.core import EmbedRequest
from nbllm.core.flag import Flag
from nbllm.frames.asks import Ask, RunOptions
from nbllm.frames.compare.matching import written
from nbllm.frames.compare.scorers import Scorer, with_scores_in_place
from nbllm.frames.run import run
from nbllm.frames.templates import is_null
from nbllm.session.model import Model

if TYPE_CHECKING:
    import pandas as pd


def with_similarity(
    model: Model,
    frame: pd.DataFrame,
    scorer: Scorer,
    gold: Sequence[Any],
    options: RunOptions,
    *,
    stop: Flag | None = None,
) -> pd.DataFrame:
    """A copy of a comparison with the score of a scorer that has no measure.

    Args:
        gold: the expected answer of each row; the scorer's argument, if it has one, stands for all of them.
    """
    wanted = gold if scorer.argument is None else [scorer.argument] * len(frame)
    values = _similarities(model, frame["response"].tolist(), wanted, options, stop)
    return with_scores_in_place(frame.assign(**{scorer.column: values}))


def _similarities(
    model: Model, texts: Sequence[Any], gold: Sequence[Any], options: RunOptions, stop: Flag | None
) -> list[float]:
    """The cosine of each text with what was expected; NaN where one of them is missing or cannot be embedded."""
    wanted = [None if is_null(want) else written(want) for want in gold]
    both = [not (is_null(text) or want is None) for text, want in zip(texts, wanted, strict=True)]
    pairs = zip(texts, wanted, both, strict=True)
    asks = [one if is_there else None for text, want, is_there in pairs for one in (text, want)]
    outcomes = run(model, map(_ask, asks), len(asks), options, stop=stop)
    vectors = [None if outcome is None else outcome.value for outcome in outcomes]
    return [_cosine(one, other) for one, other in zip(vectors[::2], vectors[1::2], strict=True)]


def _ask(text: Any) -> Ask | None:
    return None if text is None or not str(text).strip() else Ask(EmbedRequest(texts=(str(text),), priority="batch"))


def _cosine(one: Any, other: Any) -> float:
    """Of unit vectors."""
    return math.nan if one is None or other is None else float(one @ other)
