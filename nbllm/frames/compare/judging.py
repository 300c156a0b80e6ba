"""Answers judged by a model: on a scale, or two against each other. The judge can only say what is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbllm.core import unknown_option
from nbllm.core.flag import Flag
from nbllm.core.numbers import as_number
from nbllm.errors import ParameterError
from nbllm.frames.asks import Ask, RunOptions
from nbllm.frames.compare.columns import SCORE, require_results
from nbllm.frames.compare.golden import gold_of_rows
from nbllm.frames.compare.matching import written
from nbllm.frames.compare.scorers import with_scores_in_place
from nbllm.frames.run import run
from nbllm.frames.templates import is_null
from nbllm.frames.using import model_of
from nbllm.session.model import Model
from nbllm.session.requests import Options
from nbllm.session.response import Response

if TYPE_CHECKING:
    import pandas as pd

JUDGE = SCORE + "judge"
_MOST_GRADES = 101
_KEYS = ("rubric", "model", "low", "high")
PAIR_KEYS = ("prompt_idx", "case", "repeat")


@dataclass(frozen=True, slots=True)
class Judge:
    """What `judge=` asks for.

    Attributes:
        model: a name, a path or a Model; None leaves it to who asks.
        low, high: the ends of the scale, whole numbers.
    """

    rubric: str
    model: Any = None
    low: int = 1
    high: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.rubric, str) or not self.rubric.strip():
            raise ParameterError("judge", f"rubric must be a text that says what is good, not {self.rubric!r:.100}")
        ends = [as_number(int, end) for end in (self.low, self.high)]
        if None in ends or not 0 < self.high - self.low < _MOST_GRADES:
            raise ParameterError("judge", f"low and high must be whole numbers, low below high, not {ends!r:.60}")

    @classmethod
    def of(cls, judge: Any) -> Judge | None:
        """From a rubric, or a dict that has one. Raises ParameterError."""
        if judge is None or isinstance(judge, Judge):
            return judge
        if isinstance(judge, str):
            return cls(judge)
        if not isinstance(judge, Mapping) or "rubric" not in judge:
            raise ParameterError("judge", "must be a rubric, or a dict with rubric and, if need be, model, low, high")
        for key in judge:
            if key not in _KEYS:
                raise ParameterError("judge", f"{key!r:.60} {unknown_option(str(key), _KEYS)}")
        return cls(**judge)

    @property
    def kept(self) -> dict[str, Any]:
        """As a manifest has it."""
        model = self.model.name if isinstance(self.model, Model) else self.model
        return {
            "rubric": self.rubric,
            "model": None if model is None else str(model),
            "low": int(self.low),
            "high": int(self.high),
        }

    @property
    def grades(self) -> list[str]:
        return [str(grade) for grade in range(int(self.low), int(self.high) + 1)]


def judged(
    frame: pd.DataFrame,
    judge: Judge,
    model: Model,
    gold: Sequence[Any],
    options: RunOptions,
    *,
    stop: Flag | None = None,
) -> pd.DataFrame:
    """A copy with `score_judge`; a row without an answer has none.

    Args:
        gold: the expected answer of each row, None where there is none.
    """
    import pandas as pd

    prompts = [
        None if is_null(text) else _rating(judge, str(asked), str(text), want)
        for asked, text, want in zip(frame["input"], frame["response"], gold, strict=True)
    ]
    answers = _chosen(model, prompts, judge.grades, options, stop)
    grades = [None if answer is None else float(answer) for answer in answers]
    return with_scores_in_place(frame.assign(**{JUDGE: pd.Series(grades, index=frame.index, dtype="float64")}))


def judge(
    frame: pd.DataFrame,
    rubric: str | Mapping[str, Any],
    *,
    model: Any = None,
    low: int = 1,
    high: int = 5,
    expected: str | None = None,
    cache: Any = True,
    progress: Any = None,
) -> pd.DataFrame:
    """A copy of a comparison with `score_judge`, from `low` (worst) to `high` (best); like all scores it is a float.

    On any other table `df.llm.judge(answer="reply")` gives the column `judge_score` of whole numbers.

    Args:
        rubric: what makes an answer good.
        model: who judges; None is the model that was loaded last, or the default.
        expected: the column of right answers, which the judge is shown; None is what the comparison was given.

    Raises:
        ParameterError: it is no comparison, or an argument is wrong.
    """
    require_results(frame)
    wanted = Judge.of(rubric if isinstance(rubric, Mapping) else {"rubric": rubric, "low": low, "high": high})
    assert wanted is not None
    gold = gold_of_rows(frame, expected)
    options = RunOptions(cache=cache, progress=progress)
    return judged(frame, wanted, model_of(wanted.model if model is None else model), gold, options)


def pairwise(
    frame: pd.DataFrame,
    a: str,
    b: str,
    criteria: str = "Which answer is better?",
    *,
    model: Any = None,
    cache: Any = True,
    progress: Any = None,
) -> pd.DataFrame:
    """Which of two models answered better, as a third one has it, or one of the two.

    Each pair is shown in both orders. A judge that picks the same place both times has not decided: that is a tie.

    Args:
        a, b: names in the column `model`.

    Returns:
        A row for each prompt, case, parameters and repeat that both have answered: `system`, `input`, `model_a`,
        `model_b`, `response_a`, `response_b`, `a_first` and `b_first` (the model that was picked when it or the other
        came first) and `winner` (a model's name or "tie").

    Raises:
        ParameterError: it is no comparison, or has no such model.
    """
    pairs = _pairs(frame, a, b)
    options = RunOptions(cache=cache, progress=progress)
    prompts = [
        _contest(criteria, str(asked), *texts)
        for asked, one, other in zip(pairs["input"], pairs["response_a"], pairs["response_b"], strict=True)
        for texts in ((one, other), (other, one))
    ]
    picks = _chosen(model_of(model), prompts, ["A", "B"], options) if prompts else []
    pairs = pairs.assign(model_a=a, model_b=b)
    pairs["a_first"] = [_pick(pick, a, b) for pick in picks[::2]]
    pairs["b_first"] = [_pick(pick, b, a) for pick in picks[1::2]]
    pairs["winner"] = pairs["a_first"].where(pairs["a_first"] == pairs["b_first"], "tie")
    pairs.loc[pairs["a_first"].isna() | pairs["b_first"].isna(), "winner"] = None
    return pairs.astype(dict.fromkeys(("model_a", "model_b", "a_first", "b_first", "winner"), "str"))


def _pairs(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    from nbllm.frames.compare.columns import param_columns

    require_results(frame)
    names = list(dict.fromkeys(map(str, frame["model"])))
    for parameter, name in (("a", a), ("b", b)):
        if name not in names:
            raise ParameterError(parameter, f"there is no model {name!r:.100}; the models are {', '.join(names)}")
    if a == b:
        raise ParameterError("b", "is the same model as a; give another")
    keys = [*PAIR_KEYS, *param_columns(frame)]
    answered = frame[frame["response"].notna()]
    one, other = (answered[answered["model"] == name] for name in (a, b))
    paired = one.merge(other[[*keys, "response"]], on=keys, suffixes=("_a", "_b"))
    return paired[["prompt", *keys, "system", "input", "response_a", "response_b"]].copy()


def _pick(pick: str | None, first: str, second: str) -> str | None:
    return None if pick is None else {"A": first, "B": second}[pick]


def _chosen(
    model: Model,
    prompts: Sequence[str | None],
    choices: list[str],
    options: RunOptions,
    stop: Flag | None = None,
) -> list[str | None]:
    """What the model says to each prompt, which is one of the choices; None where it could not be asked."""
    asking = Options.of({"temperature": 0, "choice": choices, "seed": 0})
    asks = (None if prompt is None else Ask(asking.chat(prompt, priority="batch")) for prompt in prompts)
    outcomes = run(model, asks, len(prompts), options, stop=stop)
    answers = [None if outcome is None else outcome.value for outcome in outcomes]
    return [answer.text if isinstance(answer, Response) and answer.text in choices else None for answer in answers]


def _rating(judge: Judge, asked: str, text: str, gold: Any) -> str:
    """What is the same for all rows comes first, so that it is evaluated once."""
    expected = "" if is_null(gold) else f"\n\nThe right answer:\n{written(gold)}"
    return (
        f"You grade answers. What counts: {judge.rubric.strip()}\n"
        f"Give a whole number from {judge.low}, the worst, to {judge.high}, the best. Say only the number."
        f"\n\nThe question:\n{asked}{expected}\n\nThe answer to grade:\n{text}"
    )


def _contest(criteria: str, asked: str, first: Any, second: Any) -> str:
    return (
        f"You compare two answers to the same question. What counts: {criteria.strip()}\n"
        "Say only the letter of the better one, A or B."
        f"\n\nThe question:\n{asked}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}"
    )
