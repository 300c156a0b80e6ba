"""The rows that fill the templates, and how a manifest keeps them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nbllm.errors import ParameterError
from nbllm.frames.templates import is_null

if TYPE_CHECKING:
    import pandas as pd

EXPECTED = "expected"
"""The column that a list of expected answers becomes."""
_TIME = "$datetime"


@dataclass(frozen=True, slots=True)
class Table:
    """The cases of a comparison.

    Attributes:
        columns: None when no table was given: there is one case, without variables.
        rows: one mapping a case, each with all columns.
        labels: the names of the levels of a DataFrame's index, which are in the rows too, and in no prompt. () where
            the index only counts, as it does unless somebody made another.
    """

    columns: tuple[str, ...] | None
    rows: list[dict[str, Any]]
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: Any) -> Table:
        """From a DataFrame, a list of dicts, a dict of lists, or None.

        Raises:
            ParameterError: it is none of them, or two columns have the same name.
        """
        if data is None:
            return cls(None, [{}])
        if hasattr(data, "columns") and hasattr(data, "iloc"):
            return _from_frame(data)
        if isinstance(data, Mapping):
            return _from_columns(data, data.values())
        if isinstance(data, str | bytes) or not isinstance(data, Iterable):
            raise ParameterError("data", f"must be a DataFrame or a list of dicts, not {type(data).__name__}")
        return _from_rows(list(data))

    def column_named(self, parameter: str, name: str) -> str:
        """The name, when there is such a column. Raises ParameterError with what may have been meant."""
        columns = self.columns or ()
        if name in columns:
            return name
        close = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the columns are {', '.join(columns) or 'none'}"
        raise ParameterError(parameter, f"there is no column {name!r:.100}; {hint}")

    def with_column(self, name: str, values: Sequence[Any]) -> Table:
        """Raises ParameterError when there is such a column."""
        columns = self.columns or ()
        if name in (*columns, *self.labels):
            raise ParameterError("data", f"has a column {name!r} already; give expected={name!r}, or rename it")
        rows = [{**row, name: value} for row, value in zip(self.rows, values, strict=True)]
        return Table((*columns, name), rows, self.labels)

    def kept(self) -> dict[str, Any] | None:
        """As plain JSON, by column; `unkept` reads it."""
        if self.columns is None:
            return None
        return {name: [kept_value(row[name]) for row in self.rows] for name in (*self.labels, *self.columns)}

    def frame(self, cases: Sequence[int]) -> pd.DataFrame:
        """One row for each of the numbers of cases."""
        import pandas as pd

        names = (*self.labels, *(self.columns or ()))
        columns = {name: [row[name] for row in self.rows] for name in names}
        return pd.DataFrame(columns, index=range(len(self.rows))).take(list(cases)).reset_index(drop=True)


def unkept(data: Mapping[str, Sequence[Any]] | None) -> dict[str, list[Any]] | None:
    """What `Table.of` takes, from what `kept` gave."""
    return None if data is None else {name: [_unkept(value) for value in values] for name, values in data.items()}


def kept_value(value: Any) -> Any:
    """A value as JSON has it, so that a replay fills templates with the same text."""
    if is_null(value):
        return None
    if isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "isoformat"):
        return {_TIME: value.isoformat()}
    if isinstance(value, Mapping):
        return {str(key): kept_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [kept_value(entry) for entry in value]
    return kept_value(value.tolist()) if hasattr(value, "tolist") else str(value)


def _unkept(value: Any) -> Any:
    if not isinstance(value, Mapping) or set(value) != {_TIME}:
        return value
    import pandas as pd

    return pd.Timestamp(value[_TIME])


def _from_frame(frame: Any) -> Table:
    table = _from_columns(frame.columns, (frame.iloc[:, number].tolist() for number in range(frame.shape[1])))
    labels = _labels(frame.index, table.columns) if table.columns else {}
    for name, values in labels.items():
        for row, value in zip(table.rows, values, strict=True):
            row[name] = value
    return replace(table, labels=tuple(labels))


def _labels(index: Any, taken: Sequence[str]) -> dict[str, list[Any]]:
    """By level, called as `reset_index` calls them; a level whose name a column has is left out."""
    levels = [index.get_level_values(number).tolist() for number in range(index.nlevels)]
    if list(index.names) == [None] and levels[0] == list(range(len(index))):
        return {}
    unnamed = ["index"] if len(levels) == 1 else [f"level_{number}" for number in range(len(levels))]
    names = [other if name is None else str(name) for name, other in zip(index.names, unnamed, strict=True)]
    return {name: values for name, values in zip(names, levels, strict=True) if name not in taken}


def _from_columns(names: Iterable[Any], columns: Iterable[Any]) -> Table:
    checked = _checked_names(names)
    values = []
    for column in columns:
        if isinstance(column, str) or not isinstance(column, Iterable):
            raise ParameterError("data", "a dict must hold a list for each column; a single row is [{...}]")
        values.append(list(column))
    if len({len(column) for column in values}) > 1:
        raise ParameterError("data", "the lists of its columns differ in length")
    return Table(checked, [dict(zip(checked, row, strict=True)) for row in zip(*values, strict=True)])


def _from_rows(rows: Sequence[Any]) -> Table:
    for row in rows:
        if not isinstance(row, Mapping):
            raise ParameterError("data", f"must hold dicts, one a row, not {row!r:.100}")
    given = list(dict.fromkeys(name for row in rows for name in row))
    checked = _checked_names(given)
    return Table(checked, [{name: row.get(key) for name, key in zip(checked, given, strict=True)} for row in rows])


def _checked_names(names: Iterable[Any]) -> tuple[str, ...]:
    checked = tuple(map(str, names))
    if len(set(checked)) < len(checked):
        double = next(name for name in checked if checked.count(name) > 1)
        raise ParameterError("data", f"has two columns {double!r:.100}; rename one")
    return checked
