"""A grid and how it is to be shown, which its three views share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nbllm.frames.compare.arrangement import Arrangement, Cell
from nbllm.frames.compare.diff import Span, word_diff
from nbllm.frames.compare.entries import Entry

_MAX_COMPARED = 100_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Attributes:
    is_markdown: whether texts are formatted as Markdown, or shown as they are.
    is_diff: whether each column shows how it differs from the first.
    """

    arrangement: Arrangement
    is_markdown: bool
    is_diff: bool
    _told: dict[tuple[str, str], list[Span]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def notes(self) -> list[str]:
        """What the grid leaves out, in a line each."""
        grid = self.arrangement
        notes = []
        if not grid.cells:
            notes.append("No rows.")
        if grid.num_hidden_rows:
            notes.append(f"and {_number_of(grid.num_hidden_rows, 'more row')}: grid(max_rows=None) shows all")
        if grid.num_hidden_columns:
            notes.append(f"and {_number_of(grid.num_hidden_columns, 'more column')}")
        return notes

    def entries(self, cell: Cell, base: Cell) -> Iterator[tuple[Entry, list[Span] | None]]:
        """The cell's entries, each with how it differs, None to show it as it is.

        Args:
            base: the first column's cell, which the difference is told against.
        """
        for number, entry in enumerate(cell.entries):
            yield entry, self._difference(entry, number, cell, base)

    def _difference(self, entry: Entry, number: int, cell: Cell, base: Cell) -> list[Span] | None:
        """How the entry differs from the first column's of the same label, else of the same number; None to show it.

        An entry of the first column, or one that is no prose, or has nothing to be held against, is shown as it is.
        """
        if not self.is_diff or cell is base or not entry.text or not entry.is_prose:
            return None
        other = next(_counterparts(entry, number, base), None)
        if other is None or other.text is None or max(len(other.text), len(entry.text)) > _MAX_COMPARED:
            return None
        texts = (other.text, entry.text)
        if texts not in self._told:  # the three views ask for the same
            self._told[texts] = word_diff(*texts)
        return self._told[texts]


def _counterparts(entry: Entry, number: int, base: Cell) -> Iterator[Entry]:
    yield from (other for other in base.entries if other.label == entry.label)
    yield from base.entries[number : number + 1]


def _number_of(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("s" if number != 1 else "")
