"""What a verb gives back: the frame with new columns, a Series of its own, or a job that will have it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbllm.frames.asks import RunOptions
from nbllm.frames.jobs import in_background
from nbllm.frames.verbs.computed import DETAILS, ERROR, Computed, compute
from nbllm.frames.verbs.plan import Plan
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source

if TYPE_CHECKING:
    import pandas as pd

Finish = Callable[[Source, Plan, Settings, Computed], Any]


def carried_out(source: Source, plan: Plan, settings: Settings, finish: Finish | None = None) -> Any:
    """The plan's result, or its job with background=True.

    Args:
        finish: makes the result of what was computed; None is `with_new_columns`.

    Raises:
        ParameterError: a new column's name is taken.
    """
    source.check_new(_new_names(plan, settings), plan.option)

    def work(options: RunOptions, stop: threading.Event | None = None) -> Any:
        computed = compute(source, plan, settings, options, stop)
        return (finish or with_new_columns)(source, plan, settings, computed)

    if settings.run.background:
        return in_background(settings.run, work, len(source.frame))
    return work(settings.run)


def with_new_columns(source: Source, plan: Plan, settings: Settings, computed: Computed) -> pd.DataFrame | pd.Series:
    """The frame and its new columns; of a Series only them, as a Series where one was asked for."""
    new = told(plan, settings, computed, is_quiet=source.is_series and not plan.is_table)
    result = source.with_columns(new)
    if settings.run.on_error == "skip":
        result = result[~computed.has_failed]
    return result.iloc[:, 0] if source.is_series and not plan.is_table and not settings.details else result


def told(plan: Plan, settings: Settings, computed: Computed, *, is_quiet: bool = False) -> pd.DataFrame:
    """The new columns, with those that tell of the answers as far as they are wanted.

    Args:
        is_quiet: leave errors out unless details are wanted.
    """
    import pandas as pd

    has_errors = settings.run.on_error == "keep" and computed.has_failed.any() and not is_quiet
    if settings.details or has_errors:
        return pd.concat([computed.columns, computed.details], axis=1)
    return computed.columns


def _new_names(plan: Plan, settings: Settings) -> list[Any]:
    """Whether rows will fail is not known yet, and nobody wants to hear at the end that there is no place to say so."""
    details = DETAILS if settings.details else [ERROR] if settings.run.on_error == "keep" else []
    return [*plan.columns, *(f"{plan.base}_{name}" for name in details)]
