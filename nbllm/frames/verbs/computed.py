"""A plan carried out: the new columns of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nbllm.core.flag import Flag
from nbllm.errors import NbllmError
from nbllm.frames.asks import Ask, Outcome, RunOptions
from nbllm.frames.dtypes import typed
from nbllm.frames.landing import MisfitError, of_row
from nbllm.frames.run import reduced, run
from nbllm.frames.templates import shown
from nbllm.frames.using import model_of
from nbllm.frames.verbs.plan import Plan
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source
from nbllm.session.response import Response

if TYPE_CHECKING:
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


_Row = tuple[Sequence[Any], Sequence[Any]]
"""A row's values of the new columns, and of the details."""


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


def compute(source: Source, plan: Plan, settings: Settings, options: RunOptions, stop: Flag | None = None) -> Computed:
    """Ask what the plan says. A table without a row to ask loads no model.

    Raises:
        NbllmError: the first row's, with on_error="raise".
        KeyboardInterrupt: unless on_interrupt="return".
    """
    asked, present = rows_to_ask(source, plan, options)
    told = DETAILS if settings.details else {ERROR: DETAILS[ERROR]}
    rows: list[_Row | None] = []
    if present.any():
        asks = _asks(plan, asked, present, are_named=options.on_error == "raise")
        rows = _rows(plan, len(told), settings.model, asks, len(asked), replace(options, limit=None), stop)
    return _columns(plan, source.frame.index, rows, told)


def rows_to_ask(source: Source, plan: Plan, options: RunOptions) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """The values that are used, of the rows within the limit, and which of these rows lack none."""
    limit = len(source.frame) if options.limit is None else int(options.limit)
    asked = source.frame.iloc[:limit][list(plan.uses)]
    return asked, asked.notna().all(axis=1).to_numpy()


def _rows(
    plan: Plan,
    num_told: int,
    model: Any,
    asks: Iterator[Ask | NbllmError | None],
    num_rows: int,
    options: RunOptions,
    stop: Flag | None,
) -> list[_Row | None]:
    """Each row's values, and as much of the details as is wanted: those of a million rows are large."""

    def row(*outcomes: Outcome) -> _Row:
        return _values(plan, outcomes), _details(outcomes)[:num_told]

    if plan.num_requests == 1:
        return reduced(model_of(model), asks, num_rows, options, row, stop=stop)
    several = run(model_of(model), asks, num_rows * plan.num_requests, options, stop=stop)
    groups = zip(*[iter(several)] * plan.num_requests, strict=True)
    known = ([outcome for outcome in group if outcome is not None] for group in groups)
    # An interrupt may come between a row's requests.
    return [row(*outcomes) if len(outcomes) == plan.num_requests else None for outcomes in known]


def _asks(
    plan: Plan, asked: pd.DataFrame, present: NDArray[np.bool_], *, are_named: bool
) -> Iterator[Ask | NbllmError | None]:
    """The rows' requests.

    Args:
        are_named: whether an error is to say which row it is of, for it will not stand beside the row.
    """
    rows = zip(present, *(asked[name] for name in plan.uses), strict=True)
    for place, (is_present, *values) in enumerate(rows):
        if not is_present:
            yield from [None] * plan.num_requests
            continue
        name = row_name(asked.index, place) if are_named else ""
        try:
            requests = plan.requests(dict(zip(plan.uses, values, strict=True)))
            yield from (Ask(request, plan.misfit, name) for request in requests)
        except NbllmError as error:
            yield from [of_row(name, error)] * plan.num_requests


def row_name(index: pd.Index[Any], place: int) -> str:
    """What errors call a row: its place from 0 on, as in `df.iloc[place]`, and the index's label if it is another."""
    label = index[place]
    written = repr(label) if isinstance(label, str) else shown(label)
    return f"row {place:,}" + (f" (index {written:.60})" if written != str(place) else "")


def _columns(plan: Plan, index: pd.Index[Any], rows: Sequence[_Row | None], told: Mapping[str, str]) -> Computed:
    import numpy as np

    nothing: _Row = [None] * len(plan.columns), [None] * len(told)
    values, details = zip(*(row or nothing for row in rows), strict=True) if rows else ((), ())
    names = {f"{plan.base}_{name}": dtype for name, dtype in told.items()}
    failed = np.zeros(len(index), bool)
    failed[: len(details)] = [row[0] is not None for row in details]
    return Computed(typed(values, plan.columns, index), typed(details, names, index), failed)


def _values(plan: Plan, outcomes: Sequence[Outcome]) -> Sequence[Any]:
    if any(outcome.value is None or not _is_whole(outcome) for outcome in outcomes):
        return [None] * len(plan.columns)
    return plan.read([outcome.value for outcome in outcomes])


def _is_whole(outcome: Outcome) -> bool:
    """Of an answer that does not fit, the fields that do are kept."""
    return outcome.error is None or isinstance(outcome.error, MisfitError)


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
