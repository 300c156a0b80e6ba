"""A grid as HTML that needs no script, and reads well where its style is taken away (GitHub, an untrusted notebook).

The text of the frame comes into it through `literal` and `formatted` only, and never into an attribute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from nbllm.frames.compare.arrangement import Arrangement, Cell
from nbllm.frames.compare.diff import Span
from nbllm.frames.compare.entries import Entry
from nbllm.frames.compare.formatting import formatted, literal
from nbllm.frames.compare.shape import Shape
from nbllm.frames.compare.style import GRID

_LONG = 700
_START = 160
_MAX_LENGTH = 100_000  # of one text: a page is for reading, `to_jsonl` keeps all
_MARKS = {"same": ("", ""), "removed": ("<del>", "</del>"), "added": ("<ins>", "</ins>")}
_FORMAT = re.compile(r"^#{1,6} |\*\*(?=\S)|(?<=\S)\*\*|`+", re.MULTILINE)  # is in the way where nothing formats it
# GitHub keeps the attributes, and JupyterLab the style where it does not trust the notebook.
_PLACE = 'align="left" valign="top" style="text-align: left; vertical-align: top"'


def html_of(shape: Shape) -> str:
    """The whole grid: one `<div>` with its style."""
    grid = shape.arrangement
    notes = "".join(f"<p><small>{literal(note)}</small></p>" for note in shape.notes)
    body = "".join(_body(shape))
    return (
        f'<div class="nbllm-grid">\n<style scoped>\n{GRID}</style>\n'
        f"<table>\n<thead>\n{_head(grid)}</thead>\n<tbody>\n{body}</tbody>\n</table>\n{notes}</div>"
    )


def _head(grid: Arrangement) -> str:
    num_levels = len(grid.column_headers[0]) if grid.column_headers else 1
    lines = []
    for level in range(num_levels):
        cells = []
        if not level:
            cells += [f'<th {_PLACE} rowspan="{num_levels}">{literal(name)}</th>' for name in grid.row_names]
        for start, length in _runs([header[: level + 1] for header in grid.column_headers]):
            text = literal(grid.column_headers[start][level])
            cells.append(f'<th {_PLACE} scope="col" colspan="{length}">{text}</th>')
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    return "".join(lines)


def _body(shape: Shape) -> Iterator[str]:
    grid = shape.arrangement
    lengths: list[dict[int, int]] = [
        dict(_runs([header[: level + 1] for header in grid.row_headers])) for level in range(len(grid.row_names))
    ]
    for number, (header, cells) in enumerate(zip(grid.row_headers, grid.cells, strict=True)):
        pieces = [
            f'<th {_PLACE} scope="row" rowspan="{lengths[level][number]}">{_row_header(text)}</th>'
            for level, text in enumerate(header)
            if number in lengths[level]
        ]
        pieces += [
            f"<td {_PLACE}>{_cell(shape, cell, cells[base])}</td>" for cell, base in zip(cells, grid.bases, strict=True)
        ]
        yield f"<tr>{''.join(pieces)}</tr>\n"


def _row_header(text: str) -> str:
    return f'<div dir="auto">{_folded(text, _whole(text, literal))}</div>'


def _runs(headers: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    """Where equal neighbours begin, and how many they are."""
    start = 0
    for number in range(1, len(headers) + 1):
        if number == len(headers) or headers[number] != headers[start]:
            yield start, number - start
            start = number


def _cell(shape: Shape, cell: Cell, base: Cell) -> str:
    entries = [_entry(shape, *each) for each in shape.entries(cell, base)]
    if cell.num_hidden:
        entries.append(f"<small>and {cell.num_hidden:,} more</small>")
    return "<hr>".join(entries)


def _entry(shape: Shape, entry: Entry, difference: list[Span] | None) -> str:
    pieces = []
    if entry.label:
        pieces.append(f"<div><strong>{literal(entry.label)}</strong></div>")
    if entry.error:
        pieces.append(f'<div class="nbllm-error">⚠ {literal(entry.error)}</div>')
    if entry.placeholder:
        pieces.append(f"<div><small>{entry.placeholder}</small></div>")
    elif entry.text is not None:
        pieces.append(f'<div dir="auto">{_text(shape, entry, difference)}</div>')
    if entry.verdict:
        state = {True: ' class="nbllm-passed"', False: ' class="nbllm-failed"', None: ""}[entry.passed]
        pieces.append(f"<div><small{state}>{literal(entry.verdict)}</small></div>")
    if entry.figures:
        pieces.append(f"<div><small>{literal(entry.figures)}</small></div>")
    return "".join(pieces)


def _text(shape: Shape, entry: Entry, difference: list[Span] | None) -> str:
    text = entry.text or ""
    if difference is not None:
        num_changed = sum(span.kind != "same" and before.kind == "same" for before, span in pairwise(difference))
        num_changed += difference[0].kind != "same"
        changes = "1 difference" if num_changed == 1 else f"{num_changed:,} differences"
        return _folded(text, "".join(map(_marked, difference)), f", {changes}")
    return _folded(text, _whole(text, formatted if shape.is_markdown and entry.is_prose else literal))


def _marked(span: Span) -> str:
    opening, closing = _MARKS[span.kind]
    return f"{opening}{literal(span.text)}{closing}"


def _whole(text: str, view: Callable[[str], str]) -> str:
    num_hidden = len(text) - _MAX_LENGTH
    more = f"<br><small>and {num_hidden:,} more characters</small>" if num_hidden > 0 else ""
    return view(text[:_MAX_LENGTH]) + more


def _folded(text: str, view: str, remark: str = "") -> str:
    """`view`, which is what `text` looks like, behind its beginning if the text is long."""
    if len(text) <= _LONG:
        return view
    start = literal(" ".join(_FORMAT.sub("", text[: 2 * _START]).split())[:_START])
    size = f"<small>{len(text):,} characters{remark}</small>"
    return f'<details><summary><span class="nbllm-start">{start}… </span>{size}</summary>{view}</details>'
