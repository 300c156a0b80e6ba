"""Pairs of answers to one prompt, of which one is preferred: what DPO trains on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.errors import ParameterError
from nbllm.frames.compare.columns import require_results, turns_of
from nbllm.frames.compare.scorecolumn import score_column
from nbllm.frames.templates import is_null

if TYPE_CHECKING:
    import pandas as pd

_PAIRWISE = ("input", "model_a", "model_b", "response_a", "response_b", "winner")


class _Answer(NamedTuple):
    score: float
    text: str


def preferences(frame: pd.DataFrame, score: str | None = None) -> Iterator[Mapping[str, Any]]:
    """Which answer is chosen and which rejected, of each pair that a judge has decided or of each prompt.

    Of a prompt these are the answers with the highest score and the lowest, the first of equals; it is left out where
    all have one score, or say the same.

    Raises:
        ParameterError: the frame is no comparison and no pairwise judgement, or the score is not there or no number.
    """
    if "winner" in frame.columns and set(_PAIRWISE) <= set(frame.columns):
        if score is not None:
            raise ParameterError("score", "is not for pairwise judgements: they say which answer is better")
        yield from _decided(frame)
        return
    require_results(frame)
    for (text, system), answers in _answers(frame, score_column(frame, "score", score)).items():
        best, worst = max(answers, key=_score), min(answers, key=_score)
        if best.score > worst.score and best.text != worst.text:
            yield _pair(text, system, best.text, worst.text)


def _pair(text: str, system: str | None, chosen: str, rejected: str) -> Mapping[str, Any]:
    return {
        "prompt": turns_of(text, system),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def _decided(frame: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    values = (frame[name].tolist() for name in _PAIRWISE)
    for text, a, b, response_a, response_b, winner, system in zip(*values, _systems(frame), strict=True):
        if winner == a:
            yield _pair(text, system, response_a, response_b)
        elif winner == b:
            yield _pair(text, system, response_b, response_a)


def _answers(frame: pd.DataFrame, column: str) -> dict[tuple[str, str | None], list[_Answer]]:
    found: dict[tuple[str, str | None], list[_Answer]] = {}
    values = (frame[name].tolist() for name in ("input", "response", column))
    for text, response, score, system in zip(*values, _systems(frame), strict=True):
        if any(map(is_null, (text, response, score))):
            continue
        if isinstance(score, str):
            raise ParameterError("score", f"{column!r} holds texts, and it takes numbers to say which is better")
        found.setdefault((text, system), []).append(_Answer(float(score), response))
    return found


def _systems(frame: pd.DataFrame) -> list[str | None]:
    if "system" not in frame.columns:
        return [None] * len(frame)
    return [None if is_null(system) else system for system in frame["system"]]


def _score(answer: _Answer) -> float:
    return answer.score
