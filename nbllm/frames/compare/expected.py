"""What `expected=` of a comparison means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from nbllm.errors import ParameterError
from nbllm.frames.compare.cells import Expected
from nbllm.frames.compare.table import EXPECTED, Table


class Gold(NamedTuple):
    """Where the expected answers are, and the table, which a list of them has become a column of."""

    expected: Expected | None
    table: Table


def gold_of(expected: Any, table: Table, num_prompts: int) -> Gold:
    """From the name of a column, or a list: one answer a row, or without a table one a prompt.

    Raises:
        ParameterError: there is no such column, or the list is of another length.
    """
    if expected is None:
        return Gold(None, table)
    if isinstance(expected, str):
        if table.columns is None:
            raise ParameterError("expected", "is a column's name, and there is no data; give data=, or a list")
        return Gold(Expected(table.column_named("expected", expected)), table)
    if not isinstance(expected, Iterable):
        raise ParameterError("expected", f"must be a column's name or a list of answers, not {expected!r:.100}")
    values = list(expected)
    wanted, what = (num_prompts, "prompts") if table.columns is None else (len(table.rows), "rows of data")
    if len(values) != wanted:
        raise ParameterError("expected", f"has {len(values):,} answers for {wanted:,} {what}")
    if table.columns is None:
        return Gold(Expected(EXPECTED, values), table)
    return Gold(Expected(EXPECTED), table.with_column(EXPECTED, values))
