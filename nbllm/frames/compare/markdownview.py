"""A grid as a table of GitHub's Markdown: for pages that show no HTML, and to be pasted into an issue."""

from __future__ import annotations

from nbllm.frames.compare.arrangement import Cell
from nbllm.frames.compare.diff import Span
from nbllm.frames.compare.entries import Entry
from nbllm.frames.compare.formatting import parts_of
from nbllm.frames.compare.shape import Shape
from nbllm.markup.code import preformatted
from nbllm.markup.inline import safe_inline
from nbllm.markup.safe import literal_markdown

_MAX_LENGTH = 1_500  # of one text: the table repeats what the HTML beside it has
_PLAIN = " ,…→·.;?%/()=-+'!"  # what is no mark-up within a table's cell
_MARKS = {"same": ("", ""), "removed": ("<del>", "</del>"), "added": ("<ins>", "</ins>")}
_PIPE = "\ue000"  # stands for `|` while there is mark-up around it to be understood


def markdown_of(shape: Shape) -> str:
    grid = shape.arrangement
    header = [*map(_literal, grid.row_names), *(_literal(" / ".join(levels)) for levels in grid.column_headers)]
    lines = [_line(header), _line(["---"] * len(header))]
    for row, cells in zip(grid.row_headers, grid.cells, strict=True):
        texts = [_cell(shape, cell, cells[base]) for cell, base in zip(cells, grid.bases, strict=True)]
        lines.append(_line([*(_literal(_cut(text)) for text in row), *texts]))
    return "\n".join([*lines, *(f"\n{_literal(note)}" for note in shape.notes)])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(shape: Shape, cell: Cell, base: Cell) -> str:
    entries = [_entry(shape, *each) for each in shape.entries(cell, base)]
    if cell.num_hidden:
        entries.append(f"and {cell.num_hidden:,} more")
    return "<br><br>".join(entries)


def _entry(shape: Shape, entry: Entry, difference: list[Span] | None) -> str:
    pieces = [f"**{_literal(entry.label)}**"] if entry.label else []
    if entry.error:
        pieces.append(f"⚠ {_literal(entry.error)}")
    if entry.placeholder:
        pieces.append(entry.placeholder)
    elif entry.text is not None:
        pieces.append(_text(shape, entry, difference))
    pieces += [f"<small>{_literal(line)}</small>" for line in (entry.verdict, entry.figures) if line]
    return "<br>".join(pieces)


def _text(shape: Shape, entry: Entry, difference: list[Span] | None) -> str:
    if difference is not None:
        return "".join(_marked(span) for span in _first(difference))
    text = _cut(entry.text or "")
    return _formatted(text) if shape.is_markdown and entry.is_prose else _literal(text)


def _first(difference: list[Span]) -> list[Span]:
    """As many spans as there is room for, the last one cut."""
    room = _MAX_LENGTH
    kept = []
    for span in difference:
        kept.append(Span(span.kind, _cut(span.text, room)))
        room -= len(span.text)
        if room <= 0:
            break
    return kept


def _marked(span: Span) -> str:
    opening, closing = _MARKS[span.kind]
    return f"{opening}{_literal(span.text)}{closing}"


def _formatted(text: str) -> str:
    pieces = []
    for part in parts_of(text):
        if part.is_code:
            pieces.append(preformatted(part.lines).replace("\n", "&#10;"))
        else:
            lines = (safe_inline(line.replace("|", _PIPE), in_table=True) for line in part.lines)
            pieces.append("<br>".join(lines).replace(_PIPE, r"\|"))
    return "".join(pieces)


def _literal(text: str) -> str:
    return "<br>".join(literal_markdown(line, plain=_PLAIN) for line in text.split("\n"))


def _cut(text: str, length: int = _MAX_LENGTH) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
