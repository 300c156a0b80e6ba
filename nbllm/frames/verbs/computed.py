"""A plan carried out: the new columns of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nbllm.errors import NbllmError
from nbllm.frames.asks import Ask, Outcome, RunOptions
from nbllm.frames.run import run
from nbllm.frames.using import model_of
from nbllm.frames.verbs.plan import Plan
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source
from nbllm.session.response import Response

if TYPE_CHECKING:
    import threading

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

ERROR = "error"
DETAILS: Mapping[str, str] = {
    ERROR: "str",
    "finish_reason": "str",
    "input_tokens": "Int64",
    "output_tokens": "Int64",
    "duration_ms": "Float64",
    "cached": "boolean",
}
"""What is told of each answer, and the columns' dtypes; their names begin with the plan's base."""


@dataclass(frozen=True, slots=True)
class Computed:
    """New columns, for all rows and with their index.

    Attributes:
        columns: a value is missing where the row was null, failed, or was not asked.
        details: what `DETAILS` names, or of them the errors only, as the settings say.
        has_failed: of each row.
    """

    columns: pd.DataFrame
    details: pd.DataFrame
    has_failed: NDArray[np.bool_]


def compute(
    source: Source, plan: Plan, settings: Settings, options: RunOptions, stop: threading.Event | None = None
) -> Computed:
    """Ask what the plan says. A table without a row to ask loads no model.

    Raises:
        NbllmError: the first row's, with on_error="raise".
        KeyboardInterrupt: unless on_interrupt="return".
    """
    limit = len(source.frame) if options.limit is None else int(options.limit)
    asked = source.frame.iloc[:limit][list(plan.uses)]
    present = asked.notna().all(axis=1).to_numpy()
    outcomes: list[Outcome | None] = []
    if present.any():
        total = len(asked) * plan.num_requests
        asks = _asks(plan, asked, present)
        outcomes = run(model_of(settings.model), asks, total, replace(options, limit=None), stop=stop)
    told = DETAILS if settings.details else {ERROR: DETAILS[ERROR]}
    return _columns(plan, source.frame.index, outcomes, told)


def _asks(plan: Plan, asked: pd.DataFrame, present: NDArray[np.bool_]) -> Iterator[Ask | NbllmError | None]:
    for is_present, *values in zip(present, *(asked[name] for name in plan.uses), strict=True):
        if not is_present:
            yield from [None] * plan.num_requests
            continue
        try:
            yield from map(Ask, plan.requests(dict(zip(plan.uses, values, strict=True))))
        except NbllmError as error:
            yield from [error] * plan.num_requests


def _columns(plan: Plan, index: pd.Index[Any], outcomes: Sequence[Outcome | None], told: Mapping[str, str]) -> Computed:
    """The new columns, and as much of the details as is wanted: those of a million rows are large."""
    import numpy as np

    values: list[Sequence[Any]] = []
    details: list[Sequence[Any]] = []
    for row in zip(*[iter(outcomes)] * plan.num_requests, strict=True):
        known = [outcome for outcome in row if outcome is not None]
        is_whole = len(known) == len(row)  # an interrupt may come between a row's requests
        values.append(_values(plan, known) if is_whole else [None] * len(plan.columns))
        details.append(_details(known)[: len(told)] if is_whole else [None] * len(told))
    names = {f"{plan.base}_{name}": dtype for name, dtype in told.items()}
    failed = np.zeros(len(index), bool)
    failed[: len(details)] = [row[0] is not None for row in details]
    return Computed(_frame(values, plan.columns, index), _frame(details, names, index), failed)


def _values(plan: Plan, outcomes: Sequence[Outcome]) -> Sequence[Any]:
    if any(outcome.error is not None or outcome.value is None for outcome in outcomes):
        return [None] * len(plan.columns)
    return plan.read([outcome.value for outcome in outcomes])


def _details(outcomes: Sequence[Outcome]) -> Sequence[Any]:
    """In the order of `DETAILS`; of several answers together where a row has several."""
    error = next((str(outcome.error) or repr(outcome.error) for outcome in outcomes if outcome.error is not None), None)
    answers = [outcome.value for outcome in outcomes if isinstance(outcome.value, Response)]
    reasons = [answer.finish_reason for answer in answers]
    if error is not None and not reasons:
        reasons = ["error"]
    return [
        error,
        next((reason for reason in reasons if reason != "stop"), "stop"),
        sum(answer.usage.prompt_tokens for answer in answers) if answers else None,
        sum(answer.usage.completion_tokens for answer in answers) if answers else None,
        1000 * sum(outcome.duration_s for outcome in outcomes),
        all(outcome.cached for outcome in outcomes),
    ]


def _frame(rows: Sequence[Sequence[Any]], columns: Mapping[Any, str], index: pd.Index[Any]) -> pd.DataFrame:
    """Rows as typed columns; there may be fewer than the index has."""
    import pandas as pd

    by_column = list(zip(*rows, strict=True)) or [()] * len(columns)
    padding = [None] * (len(index) - len(rows))
    return pd.DataFrame(
        {
            name: pd.Series([*values, *padding], index=index, dtype=dtype)
            for (name, dtype), values in zip(columns.items(), by_column, strict=True)
        },
        index=index,
    )
