"""A comparison's rows put into the cells of a grid: which headers there are, and which entries each cell has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbllm.errors import ParameterError
from nbllm.frames.compare.columns import REQUIRED, no_column, score_columns
from nbllm.frames.compare.entries import (
    Entry,
    entry_of,
    labelled,
    labelling_columns,
    labels_of,
    read_aloud,
    short_name,
    words,
)

if TYPE_CHECKING:
    import pandas as pd

_MAX_COLUMNS = 50
_MAX_STACKED = 20
_FIGURES = ("error", "passed", "finish_reason", "input_tokens", "output_tokens", "duration_ms", "tokens_per_s")

Names = str | list[str] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    entries: tuple[Entry, ...]
    num_hidden: int = 0


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What a grid shows, without the frame.

    Attributes:
        row_names: of the levels of the row headers.
        row_headers: one text a level for each row; `column_headers` likewise.
        cells: [row][column].
        bases: for each column the one that a difference is told against; its own number in the first.
    """

    row_names: tuple[str, ...]
    row_headers: tuple[tuple[str, ...], ...]
    column_headers: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[Cell, ...], ...]
    bases: tuple[int, ...]
    num_hidden_rows: int
    num_hidden_columns: int


def arrange(frame: pd.DataFrame, rows: Names, cols: Names, values: Names, max_rows: int | None) -> Arrangement:
    """Take the first rows of the grid, and of each cell the first entries.

    Raises:
        ParameterError: a name is no column, or `max_rows` is no positive number.
    """
    row_names, column_names = _checked(frame, "rows", rows), _checked(frame, "cols", cols)
    value_names = _checked(frame, "values", values)
    for param, names in (("rows", row_names), ("values", value_names)):
        if not names:
            raise ParameterError(param, "name at least one column")
    if max_rows is not None and (isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 1):
        raise ParameterError("max_rows", f"must be a whole number from 1, or None for all, not {max_rows!r:.40}")
    across = _groups(frame, row_names)
    down = _groups(frame, column_names)
    places = _Places(across, down, max_rows)
    return _Filled(frame, places, row_names, column_names, value_names).arrangement()


def _checked(frame: pd.DataFrame, param: str, names: Names) -> list[str]:
    listed = list(names) if isinstance(names, list | tuple) else [names]
    known = list(frame.columns)
    for name in listed:
        if known.count(name) == 1:
            continue
        if name in known:
            raise ParameterError(param, f"the frame has more than one column {name!r}: rename all but one")
        if name in REQUIRED and not set(REQUIRED) <= set(known):
            advice = "it is no result of nbllm.compare; for another frame name its columns: " + _example(known)
            raise ParameterError(param, f"no column {name!r}: {advice}")
        raise no_column(param, name, known, otherwise=f"there are {', '.join(map(repr, known))[:200]}")
    return listed


def _example(known: list[Any]) -> str:
    """How a frame with these columns can be shown as a grid."""
    first, last = (known[0], known[-1]) if known else ("topic", "text")
    return f"grid(rows={first!r:.60}, cols=[], values={last!r:.60})"


@dataclass(frozen=True, slots=True)
class _Groups:
    """Which header each of the frame's rows is under: `numbers` in order of appearance, `codes` level by level."""

    numbers: Any
    codes: Any
    num: int


def _groups(frame: pd.DataFrame, names: Sequence[str]) -> _Groups:
    import numpy as np
    import pandas as pd

    codes = np.zeros((len(frame), max(len(names), 1)), dtype=np.int64)
    for level, name in enumerate(names):
        column = frame[name]
        try:
            codes[:, level] = pd.factorize(column, use_na_sentinel=False)[0]
        except TypeError:  # lists and dicts have no hash
            codes[:, level] = pd.factorize(column.map(words))[0]
    numbers = pd.DataFrame(codes).groupby(list(range(codes.shape[1])), sort=False).ngroup().to_numpy()
    return _Groups(numbers, codes, int(numbers.max()) + 1 if len(numbers) else 0)


class _Places:
    """The part of the frame that is shown: its positions, their cells, and how many more there are."""

    def __init__(self, across: _Groups, down: _Groups, max_rows: int | None) -> None:
        import numpy as np
        import pandas as pd

        num_rows = across.num if max_rows is None else min(across.num, max_rows)
        num_columns = min(down.num, _MAX_COLUMNS)
        inside = np.flatnonzero((across.numbers < num_rows) & (down.numbers < num_columns))
        self.rows = _ordered(across, inside)
        self.columns = _ordered(down, inside)
        self.num_hidden_rows, self.num_hidden_columns = across.num - num_rows, down.num - num_columns
        cells = pd.DataFrame({"row": across.numbers[inside], "column": down.numbers[inside]})
        order = cells.groupby(["row", "column"]).cumcount().to_numpy()
        self.num_entries = dict(cells.value_counts().items())
        self.positions = inside[order < _MAX_STACKED]
        self.keys = list(cells[order < _MAX_STACKED].itertuples(index=False, name=None))


def _ordered(groups: _Groups, inside: Any) -> dict[int, int]:
    """A group's number and where its first row is, equal outer levels side by side."""
    first: dict[int, int] = {}
    for position, number in zip(inside.tolist(), groups.numbers[inside].tolist(), strict=True):
        first.setdefault(number, position)
    return dict(sorted(first.items(), key=lambda item: tuple(groups.codes[item[1]])))


class _Filled:
    def __init__(
        self, frame: pd.DataFrame, places: _Places, rows: list[str], columns: list[str], values: list[str]
    ) -> None:
        self._frame = frame
        self._places = places
        self._rows, self._columns, self._values = rows, columns, values
        self._labelling = labelling_columns([name for name in frame.columns if name not in {*rows, *columns}])
        self._records = self._by_cell()

    def _by_cell(self) -> dict[tuple[int, int], list[dict[str, Any]]]:
        needed = dict.fromkeys([*self._values, *self._labelling, *_FIGURES, *score_columns(self._frame)])
        part = self._frame.iloc[self._places.positions]
        lists = {name: part[name].tolist() for name in needed if name in part.columns}
        found: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for number, key in enumerate(self._places.keys):
            found.setdefault(key, []).append({name: values[number] for name, values in lists.items()})
        return found

    def arrangement(self) -> Arrangement:
        places, num_values = self._places, len(self._values)
        has_level = num_values > 1 or not self._columns
        headers = [
            (*self._header(position, self._columns, labelled), *([short_name(value)] if has_level else []))
            for position in places.columns.values()
            for value in self._values
        ]
        return Arrangement(
            row_names=tuple(map(short_name, self._rows)),
            row_headers=tuple(self._header(position, self._rows, _row_text) for position in places.rows.values()),
            column_headers=tuple(headers),
            cells=tuple(tuple(self._cells(row)) for row in places.rows),
            bases=tuple(number % num_values for number in range(len(headers))),
            num_hidden_rows=places.num_hidden_rows,
            num_hidden_columns=places.num_hidden_columns * num_values,
        )

    def _header(self, position: int, names: list[str], text: Any) -> tuple[str, ...]:
        return tuple(text(name, self._frame[name].iloc[position]) for name in names)

    def _cells(self, row: int) -> Iterable[Cell]:
        for column in self._places.columns:
            records = self._records.get((row, column), [])
            labels = labels_of(records, self._labelling)
            num_hidden = self._places.num_entries.get((row, column), 0) - len(records)
            for value in self._values:
                entries = (entry_of(record, value, label) for record, label in zip(records, labels, strict=True))
                yield Cell(tuple(entries), num_hidden)


def _row_text(name: str, value: Any) -> str:
    return read_aloud(value) if name == "input" and isinstance(value, str) else words(value)
