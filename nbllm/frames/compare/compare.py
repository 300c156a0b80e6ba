"""`nbllm.compare`: the same prompts to several models, with several parameters, as one tidy frame."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nbllm.core.numbers import as_number
from nbllm.errors import ParameterError
from nbllm.frames.asks import OnError, Progress, RunOptions
from nbllm.frames.compare.calls import told_in_one_line
from nbllm.frames.compare.cells import Cells
from nbllm.frames.compare.contenders import contenders_of
from nbllm.frames.compare.expected import gold_of
from nbllm.frames.compare.judging import Judge
from nbllm.frames.compare.params import param_sets_of, place_of, plain_shape
from nbllm.frames.compare.plan import Plan
from nbllm.frames.compare.prompts import templates_of
from nbllm.frames.compare.scorers import scorers_of
from nbllm.frames.compare.table import Table, kept_value
from nbllm.frames.jobs import in_background
from nbllm.session.cache import AnswerCache
from nbllm.session.model import Model
from nbllm.session.requests import Prompt

if TYPE_CHECKING:
    import pandas as pd

Order = Literal["model", "input"]
_MOST_REPEATS = 10_000


@told_in_one_line(place_of)
def compare(
    prompts: Prompt | Iterable[Prompt] | Mapping[str, Prompt],
    models: str | Path | Model | Sequence[str | Path | Model] | Mapping[str, str | Path | Model] | None = None,
    params: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    data: Any = None,
    *,
    system: str | None = None,
    response_format: Any = None,
    repeat: int = 1,
    seed: int = 0,
    scorers: Any = None,
    expected: str | Sequence[Any] | None = None,
    judge: str | Mapping[str, Any] | None = None,
    order: Order = "model",
    cache: bool | AnswerCache = True,
    progress: bool | Progress | None = None,
    max_concurrency: int | None = None,
    on_error: OnError = "keep",
    limit: int | None = None,
    background: bool = False,
    keep_loaded: bool = False,
) -> pd.DataFrame:
    """Ask models the same, and get one row an answer; its columns are those of `nbllm.frames.compare.columns`.

    The models run one after the other, each with all its rows together. One that was not loaded before is loaded when
    an answer of it is not in the cache, and closed before the next one is loaded. A model that cannot be loaded, or
    dies, leaves its rows with the error.

    Args:
        prompts: a text, a list, a dict of named ones; each a text or a list of messages. `{name}` is a column of
            `data`; a list's texts are taken as they are when there is no data.
        models: names, paths, Models such as `nbllm.connect` gives, or a dict of names for them. None is the one that
            was loaded last, or the default.
        params: a dict of lists is a grid, a list of dicts the combinations themselves: {"temperature": [0, 0.8],
            "max_tokens": 64}. Any option of `Model.chat`, and temperature 0 where none is given.
        data: a DataFrame, a list of dicts or a dict of lists: one case a row. A row that lacks a value that a prompt
            uses is not asked, and has no response. Its columns come back as `var_planet` for `planet`, and `case` is
            the number of the row. A DataFrame's index, unless it only counts the rows, comes back too: as `var_` and
            its name, or `var_index`.
        system, response_format: of all rows; besides what `Model.chat` takes the latter may be "name, age int".
        repeat: how often each is asked. Each row's seed is made of `seed`, its messages and the number of the repeat;
            at temperature 0 all repeats are the same.
        scorers: see `nbllm.frames.compare.scorers`: "equals", ("contains", "Paris"), functions, a list or a dict of
            them. A function of two is given the text and the row: `lambda text, row: row["var_planet"] in text`. A
            `similarity` is measured with the last of the models, so that all are measured alike.
        expected: the column of `data` with the right answers, or a list of them, one a row or a prompt. Answers are
            compared with them by value: `true` is True, and "1" is 1.0; see `nbllm.frames.compare.matching`.
        judge: a rubric, or {"rubric", "model", "low": 1, "high": 5}: a model's grade as `score_judge`. The judge runs
            after the others, and is the last of them when no model is named.
        order: of the frame's rows: model by model, or "input": what the models say to the same input side by side.
        cache: keep and reuse answers; False asks again.
        progress: as in `df.llm.map`; a function is called with the numbers of finished and of all answers.
        max_concurrency: rows that are with a model at a time.
        on_error: "keep" puts it into the row's `error`, "raise" raises the first, "skip" leaves its rows out.
        limit: only the first so many rows of `data`, or without data the first so many prompts, each with all that is
            asked of it by every model.
        background: give a `Job` at once that goes on behind other cells: `.progress`, `.cancel()`, `.result()`.
        keep_loaded: leave the models in memory, if they fit.

    Raises:
        InvalidRequestError: an argument is wrong; nothing was asked.
        KeyboardInterrupt: it was interrupted. What is finished is in the cache; the same call goes on from there.
    """
    plan, options = planned(
        prompts, models, params, data, system=system, response_format=response_format, repeat=repeat, seed=seed,
        scorers=scorers, expected=expected, judge=judge, order=order, cache=cache, progress=progress,
        max_concurrency=max_concurrency, on_error=on_error, limit=limit, keep_loaded=keep_loaded,
    )  # fmt: skip
    return in_background(options, plan.run, plan.total) if background else plan.run(options)


class Planned(NamedTuple):
    """A comparison that was checked, and how it is to be run: `plan.run(options)`."""

    plan: Plan
    options: RunOptions


def planned(
    prompts: Any,
    models: Any = None,
    params: Any = None,
    data: Any = None,
    *,
    system: str | None = None,
    response_format: Any = None,
    repeat: int = 1,
    seed: int = 0,
    scorers: Any = None,
    expected: Any = None,
    judge: Any = None,
    order: str = "model",
    limit: int | None = None,
    keep_loaded: bool = False,
    **run_options: Any,
) -> Planned:
    """What `compare` would run, for whoever wants to watch it. Loads nothing.

    Args:
        run_options: those of `RunOptions`.

    Raises:
        InvalidRequestError: an argument is wrong.
    """
    options = RunOptions(**run_options)
    RunOptions(limit=limit)
    table = Table.of(data)
    templates = templates_of(prompts, table.columns)
    gold = gold_of(expected, table, len(templates))
    cells = Cells(
        templates,
        gold.table,
        param_sets_of(params, system=system, response_format=response_format),
        _checked_int("repeat", repeat, 1, _MOST_REPEATS),
        _checked_int("seed", seed, -(2**63), 2**63 - 1),
        limit,
        gold.expected,
    )
    scores, rater = scorers_of(scorers, has_expected=gold.expected is not None), Judge.of(judge)
    inputs = {
        **_inputs(cells),
        "system": system,
        "response_format": plain_shape(response_format),
        "scorers": {scorer.name: scorer.kept for scorer in scores},
        "judge": None if rater is None else rater.kept,
        "order": _checked_order(order),
    }
    return Planned(Plan(cells, contenders_of(models), scores, rater, inputs, order, keep_loaded), options)


def _inputs(cells: Cells) -> dict[str, Any]:
    """What a replay gives to `compare` again."""
    kept, expected = cells.table.kept(), cells.expected
    answers = None if expected is None or expected.by_prompt is None else list(map(kept_value, expected.by_prompt))
    return {
        "prompts": {template.name: template.source for template in cells.prompts},
        "params": [dict(params.values) for params in cells.params],
        "data": None if kept is None else json.dumps(kept, ensure_ascii=False),
        "repeat": cells.repeat,
        "seed": cells.seed,
        "limit": cells.limit,
        "expected": answers or (None if expected is None else expected.column),
    }


def _checked_int(name: str, value: object, low: int, high: int) -> int:
    number = as_number(int, value)
    if number is None or not low <= number <= high:
        raise ParameterError(name, f"must be a whole number from {low} to {high}, not {value!r:.100}")
    return int(number)


def _checked_order(order: str) -> str:
    if order not in ("model", "input"):
        raise ParameterError("order", f"must be 'model' or 'input', not {order!r:.100}")
    return order
