"""What a verb gives back: the frame with new columns, a Series of its own, or a job that will have it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbllm.core.flag import Flag
from nbllm.frames.asks import RunOptions
from nbllm.frames.jobs import in_background
from nbllm.frames.verbs.computed import DETAILS, ERROR, Computed, compute, row_name
from nbllm.frames.verbs.plan import Plan
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source

if TYPE_CHECKING:
    import pandas as pd

Finish = Callable[[Source, Plan, Settings, Computed], Any]
_logger = logging.getLogger("nbllm")


def carried_out(source: Source, plan: Plan, settings: Settings, finish: Finish | None = None) -> Any:
    """The plan's result, or its job with background=True.

    Args:
        finish: makes the result of what was computed; None is `with_new_columns`.

    Raises:
        ParameterError: a new column's name is taken.
    """
    if not settings.overwrite:
        source.check_new(_new_names(plan, settings), plan.option)
    _tell_of_system(source, settings)

    def work(options: RunOptions, stop: Flag | None = None) -> Any:
        computed = compute(source, plan, settings, options, stop)
        if options.on_error == "skip" and computed.has_failed.any():
            first = int(computed.has_failed.argmax())
            problem = computed.details[f"{plan.base}_{ERROR}"].iloc[first]
            tell_of_skipped(
                int(computed.has_failed.sum()), len(source.frame), row_name(source.frame.index, first), problem
            )
        told_before = [f"{plan.base}_{name}" for name in DETAILS] if settings.overwrite else []
        return (finish or with_new_columns)(source.without(told_before), plan, settings, computed)

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


def tell_of_skipped(num_failed: int, num_rows: int, first: str, problem: str) -> None:
    """Say how many rows are not in the result; nothing else does."""
    _logger.warning("%s of %s rows failed and are left out; the first is %s: %s",
                    f"{num_failed:,}", f"{num_rows:,}", first, problem)  # fmt: skip


def _tell_of_system(source: Source, settings: Settings) -> None:
    """Where columns stand in braces, somebody expects their values."""
    named = source.written_in(settings.options.system or "")
    if named:
        _logger.warning("system: {%s} is sent as it is, for a system message is the same for all rows; columns are "
                        "filled in in the prompt", named[0])  # fmt: skip


def _new_names(plan: Plan, settings: Settings) -> list[Any]:
    """Whether rows will fail is not known yet, and nobody wants to hear at the end that there is no place to say so."""
    details = DETAILS if settings.details else [ERROR] if settings.run.on_error == "keep" else []
    return [*plan.columns, *(f"{plan.base}_{name}" for name in details)]
