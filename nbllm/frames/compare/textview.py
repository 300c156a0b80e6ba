"""A grid as lines of text no wider than the terminal: aligned columns, as many beside each other as are legible."""

from __future__ import annotations

import shutil
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

from nbllm.frames.compare.arrangement import Cell
from nbllm.frames.compare.diff import Span
from nbllm.frames.compare.entries import Entry
from nbllm.frames.compare.shape import Shape

_WIDTH = 100  # where there is no terminal, as in a kernel
_MIN_WIDTH, _MIN_COLUMN = 40, 18
_MAX_LINES = 8  # of one text
_GAP = "  "
_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}


def text_of(shape: Shape) -> str:
    width = max(shutil.get_terminal_size((_WIDTH, 24)).columns, _MIN_WIDTH)
    grid = shape.arrangement
    num_columns = len(grid.column_headers)
    at_once = max(1, width // (_MIN_COLUMN + len(_GAP)) - 1)
    blocks = [
        _block(shape, range(start, min(start + at_once, num_columns)), width)
        for start in range(0, max(num_columns, 1), at_once)
    ]
    return "\n".join(["\n\n".join(blocks), *shape.notes])


def _block(shape: Shape, columns: range, width: int) -> str:
    """The row headers and some of the columns."""
    grid = shape.arrangement
    room = (width - len(_GAP) * len(columns)) // (len(columns) + 1)
    first = [" / ".join(grid.row_names), *(" / ".join(grid.column_headers[number]) for number in columns)]
    rows = [[_wrapped(text, room) for text in first]]
    for header, cells in zip(grid.row_headers, grid.cells, strict=True):
        texts = [_cell(shape, cells[number], cells[grid.bases[number]], room) for number in columns]
        rows.append([_wrapped(" / ".join(header), room), *texts])
    widths = [max(1, *(_columns(line) for row in rows for line in row[number])) for number in range(len(columns) + 1)]
    rule = _GAP.join("─" * size for size in widths)
    return f"\n{rule}\n".join("\n".join(_aligned(row, widths)) for row in rows)


def _aligned(cells: Sequence[list[str]], widths: Sequence[int]) -> Iterator[str]:
    for number in range(max(map(len, cells))):
        lines = [cell[number] if number < len(cell) else "" for cell in cells]
        padded = [line + " " * (size - _columns(line)) for line, size in zip(lines, widths, strict=True)]
        yield _GAP.join(padded).rstrip()


def _cell(shape: Shape, cell: Cell, base: Cell, width: int) -> list[str]:
    lines: list[str] = []
    for entry, difference in shape.entries(cell, base):
        lines += [""] if lines else []
        lines += _entry(entry, difference, width)
    return [*lines, f"and {cell.num_hidden:,} more"] if cell.num_hidden else lines


def _entry(entry: Entry, difference: list[Span] | None, width: int) -> list[str]:
    text = entry.text or ""
    if difference is not None:
        text = "".join(f"{_MARKS[span.kind][0]}{span.text}{_MARKS[span.kind][1]}" for span in difference)
    lines = _wrapped(f"[{entry.label}]", width) if entry.label else []
    lines += _wrapped(f"⚠ {entry.error}", width) if entry.error else []
    lines += [entry.placeholder] if entry.placeholder else _wrapped(text, width)
    for line in (entry.verdict, entry.figures):
        lines += _wrapped(line, width)
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """`text` in lines that take up at most `width` columns; the end of a long one is left out."""
    lines: list[str] = []
    for line in text[: width * _MAX_LINES * 2].split("\n"):
        lines += _pieces(line, width)
        if len(lines) > _MAX_LINES:
            return [*lines[: _MAX_LINES - 1], f"… ({len(text):,} characters)"[:width]]
    return [line for line in lines if line] if len(lines) == 1 else lines


def _pieces(line: str, width: int) -> list[str]:
    if line.isascii():
        return textwrap.wrap(line, width, drop_whitespace=True, replace_whitespace=False) or [""]
    pieces, size = [""], 0
    for character in line:
        wide = _columns(character)
        if size + wide > width:
            head, space, word = pieces[-1].rpartition(" ")
            pieces[-1:] = [head, word] if space and len(word) < width // 2 else [pieces[-1], ""]
            size = _columns(pieces[-1])
        pieces[-1] += character
        size += wide
    return pieces


def _columns(text: str) -> int:
    """How many columns of a terminal `text` takes up."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )
