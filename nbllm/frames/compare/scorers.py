"""Scores of a comparison's answers.

    scorers="equals"                                          one name: the column is score_equals
    scorers=["is_json", "length", ("contains", "Paris")]      names, and with an argument (name, argument)
    scorers={"year": ("regex", r"\\d{4}"), "short": lambda text: len(text) < 80}

    equals contains levenshtein rouge rouge1 rouge2 rougeL    against `expected`, or against the argument in all rows;
                                                              by value: see `nbllm.frames.compare.matching`
    similarity                                                the same, as the cosine of embeddings
    regex json_schema                                         of the argument
    is_json length latency                                    take no argument

A function of one parameter is given the answer's text, one of two the text and the row, a dict with the columns of
`nbllm.frames.compare.columns`: row["var_planet"] is the data's `planet`. It gives a number, a truth or None. Truths
become 1.0 and 0.0, and make up the column `passed`.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbllm.core import unknown_option
from nbllm.errors import ParameterError
from nbllm.frames.compare.columns import SCORE, VAR
from nbllm.frames.compare.measures import NAMED, SIMILARITY, Answer, Measure
from nbllm.frames.templates import is_null

if TYPE_CHECKING:
    import pandas as pd

_FORMS = "a name, (name, argument), or a function of the answer's text"
_logger = logging.getLogger("nbllm")


@dataclass(frozen=True, slots=True)
class Scorer:
    """One score.

    Attributes:
        kept: what it was made of, as a manifest has it.
        measure: None for the similarity, which `embedding.with_similarity` computes.
        argument: of the similarity, the text to compare with in all rows.
    """

    name: str
    kept: Any
    measure: Measure | None
    argument: Any = None

    @property
    def column(self) -> str:
        return SCORE + self.name


def scorers_of(scorers: Any, *, has_expected: bool) -> list[Scorer]:
    """The scores that were asked for, checked before any model is loaded.

    Raises:
        ParameterError: one is unknown, lacks its argument, or has nothing to compare with.
        UnsupportedError: its library is not installed.
    """
    if scorers is None:
        return []
    if isinstance(scorers, Mapping):
        pairs = [(str(name), _as_pair(spec)) for name, spec in scorers.items()]
    elif isinstance(scorers, str | tuple) or callable(scorers) or not isinstance(scorers, Iterable):
        pairs = [(_name(scorers), scorers)]
    else:
        pairs = [(_name(spec), spec) for spec in scorers]
    made = [_scorer(name, spec, has_expected) for name, spec in pairs]
    names = [scorer.name for scorer in made]
    for name in names:
        if names.count(name) > 1:
            raise ParameterError("scorers", f"two are called {name!r:.60}; give a dict of different names for them")
    return made


def scored(frame: pd.DataFrame, scorers: Sequence[Scorer], gold: Sequence[Any]) -> pd.DataFrame:
    """A copy with a column for each score, and `passed`. A row without an answer has none.

    Args:
        gold: the expected answer of each row, None where there is none.
    """
    import pandas as pd

    scored, truths = frame.copy(), []
    rows: list[Answer] = frame.to_dict("records")
    for scorer in scorers:
        if scorer.measure is None:
            continue
        values = _Measuring(scorer).all(rows, gold)
        scored[scorer.column] = pd.Series([_number(value) for value in values], index=frame.index, dtype="float64")
        if _are_truths(values):
            truths.append(pd.Series(values, index=frame.index, dtype="boolean"))
    if truths:
        before = [scored["passed"]] if "passed" in scored and scored["passed"].notna().any() else []
        scored["passed"] = pd.concat([*before, *truths], axis=1).astype("boolean").all(axis=1, skipna=False)
    return with_scores_in_place(scored)


def with_scores_in_place(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with its scores before `passed`."""
    columns = [name for name in frame.columns if not str(name).startswith(SCORE)]
    place = columns.index("passed") if "passed" in columns else len(columns)
    scores = [name for name in frame.columns if str(name).startswith(SCORE)]
    return frame[[*columns[:place], *scores, *columns[place:]]]


def _as_pair(spec: Any) -> Any:
    """A manifest read from JSON has a list where a tuple was."""
    return tuple(spec) if isinstance(spec, list) else spec


def _name(spec: Any) -> str:
    if isinstance(spec, str):
        return spec
    if isinstance(spec, tuple) and spec and isinstance(spec[0], str):
        return spec[0]
    name = getattr(spec, "__name__", type(spec).__name__)
    return "function" if name == "<lambda>" else str(name)


def _scorer(name: str, spec: Any, has_expected: bool) -> Scorer:
    if isinstance(spec, str):
        spec = (spec, None)
    if isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[0], str):
        return _named(name, *spec, has_expected)
    if callable(spec):
        return Scorer(name, {"function": getattr(spec, "__qualname__", type(spec).__name__)}, _called(name, spec))
    raise ParameterError("scorers", f"{name}: must be {_FORMS}, not {spec!r:.100}")


def _named(name: str, kind: str, argument: Any, has_expected: bool) -> Scorer:
    if kind == SIMILARITY:
        needs, make = "gold", None
    elif kind in NAMED:
        needs, make = NAMED[kind].argument, NAMED[kind].make
    elif kind.partition(":")[0] in NAMED:
        first, _, rest = kind.partition(":")
        raise ParameterError("scorers", f"write ({first!r}, {rest!r:.60}) for {kind!r:.60}")
    else:
        raise ParameterError("scorers", f"{kind!r:.60} " + unknown_option(kind, [*NAMED, SIMILARITY]))
    if needs == "needed" and argument is None:
        raise ParameterError("scorers", f"{kind} needs its argument: ({kind!r}, ...)")
    if needs == "none" and argument is not None:
        raise ParameterError("scorers", f"{kind} takes no argument; write {kind!r}")
    if needs == "gold" and argument is None and not has_expected:
        raise ParameterError("scorers", f"{kind} needs expected=, a column of answers, or ({kind!r}, 'the answer')")
    kept = kind if argument is None else [kind, _plain(argument)]
    return Scorer(name, kept, None if make is None else make(argument), argument)


def _plain(argument: Any) -> Any:
    return argument.model_json_schema() if callable(getattr(argument, "model_json_schema", None)) else argument


def _called(name: str, function: Callable[..., Any]) -> Measure:
    num_parameters = _num_parameters(name, function)
    if num_parameters == 1:
        return lambda row, gold: function(row["response"])
    return lambda row, gold: function(row["response"], dict(row))


def _num_parameters(name: str, function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a built-in one that does not say
        return 1
    by_place = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in by_place if one.default is one.empty]
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if len(needed) > 2 or not (by_place or takes_any):
        raise ParameterError("scorers", f"{name}: a function takes the answer's text, or the text and the row")
    return 2 if len(needed) == 2 else 1


class _Measuring:
    """One score of all rows. What it raises for a row leaves that row without the score, and is told once."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self._problems = scorer, 0

    def all(self, rows: Sequence[Answer], gold: Sequence[Any]) -> list[float | bool | None]:
        assert self._scorer.measure is not None
        values = [self._one(self._scorer.measure, row, want) for row, want in zip(rows, gold, strict=True)]
        if self._problems > 1:
            _logger.warning("score %s: %d rows are without it", self._scorer.name, self._problems)
        return values

    def _one(self, measure: Measure, row: Answer, gold: Any) -> float | bool | None:
        if is_null(row["response"]) or row.get("finish_reason") == "error":
            return None
        try:
            return _checked(measure(row, None if is_null(gold) else gold))
        except Exception as error:  # noqa: BLE001  # a function of the user's: the answers must not be lost with it
            if not self._problems:
                hint = _hint(error, row)
                _logger.warning("score %s: %s: %s%s", self._scorer.name, type(error).__name__, error, hint)
            self._problems += 1
            return None


def _hint(error: Exception, row: Answer) -> str:
    """What to write for a key that the row lacks."""
    if not isinstance(error, KeyError) or not error.args:
        return ""
    name = error.args[0]
    if f"{VAR}{name}" in row:
        return f"; a column of the data is row[{VAR + name!r}]"
    close = difflib.get_close_matches(str(name), list(map(str, row)), n=1)
    return f"; did you mean row[{close[0]!r}]?" if close and name not in row else ""


def _checked(value: Any) -> float | bool | None:
    value = value.item() if hasattr(value, "item") else value
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(f"gave {value!r:.60}, and a score is a number, a truth or None")


def _number(value: float | bool | None) -> float:
    return math.nan if value is None else float(value)


def _are_truths(values: Sequence[float | bool | None]) -> bool:
    kinds = {type(value) for value in values if value is not None}
    return kinds == {bool}
