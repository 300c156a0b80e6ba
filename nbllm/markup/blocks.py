"""The lines of a model's text, grouped into the blocks that are made safe one by one.

A block is done when a line comes that cannot belong to it; what was emitted never changes afterwards. Fences at the
top level are emitted again as fences of our own, between blank lines; code in lists and quotes becomes one line of
HTML; nothing else in the result can open a fence, so no parser can lose count of them.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from nbllm.markup.code import fence, preformatted
from nbllm.markup.lines import HEADING, indent_of
from nbllm.markup.paragraphs import LIST_ITEM, safe_lines

_MAX_QUOTE_DEPTH = 10
_QUOTE_MARK = re.compile(r" {0,3}> ?")
_QUOTE_MARKS = re.compile(r"(?: {0,3}> ?)+")
_FENCE = re.compile(r"([ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)(?:(`{3,})([^`]*)|(~{3,})(.*))")


class _Quoted(NamedTuple):
    depth: int
    rest: str


@dataclass(frozen=True, slots=True)
class _OpenFence:
    mark: str
    info: str
    indent: int
    prefix: str | None  # of the line that the code becomes; None at the top level

    def is_closed_by(self, line: str) -> bool:
        stripped = line.strip(" \t")
        return (
            len(stripped) >= len(self.mark)
            and not stripped.strip(self.mark[0])
            and (self.prefix is not None or indent_of(line) <= self.indent + 3)
        )


class Blocks:
    """Takes lines, holds the safe Markdown of the finished blocks in `done`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._pending: list[str] = []
        self._kind: Literal["text", "indented"] = "text"
        self._depth = 0
        self._fence: _OpenFence | None = None
        self._list_offset = 0  # the column of the last list item's text, 0 outside lists
        self._after_blank = True
        self._after_fence = False

    def preview(self, line: str) -> list[str]:
        """What would follow `done` if the text ended with `line`; changes nothing."""
        twin = copy.copy(self)
        twin.done = self.done[-1:]
        twin._pending = self._pending.copy()
        if line or not twin._fence:
            twin.feed(line)
        twin._finish()
        return twin.done[len(self.done[-1:]) :]

    def feed(self, line: str) -> None:
        if self._fence and self._take_fenced(line, self._fence):
            return
        quoted = _unquoted(line)
        if quoted.depth != self._depth:
            self._finish()
            self._depth, self._list_offset, self._after_blank = quoted.depth, 0, True
        if not quoted.rest.strip(" \t"):
            self._take_blank()
            return
        if self._kind == "indented" and self._pending:
            if indent_of(quoted.rest) >= self._list_offset + 4:
                self._pending.append(quoted.rest)
                return
            self._finish()
        self._take_line(quoted.rest)
        self._after_blank = False

    def _take_line(self, line: str) -> None:
        if ("```" in line or "~~~" in line) and (match := _FENCE.fullmatch(line)):
            self._finish()
            self._open_fence(match)
            return
        is_item = self._note_list(line)
        if self._after_blank and not is_item and indent_of(line) >= self._list_offset + 4:
            self._finish()
            self._kind = "indented"
        self._pending.append(line)

    def _note_list(self, line: str) -> bool:
        """Follow where the text of list items starts; whether `line` starts an item."""
        indent = indent_of(line)
        item = LIST_ITEM.match(line)
        if item and (self._list_offset or indent <= 3):
            gap = len(item[3].expandtabs(4))
            self._list_offset = indent + len(item[2]) + (gap if 1 <= gap <= 4 else 1)
            return True
        if indent == 0 and (self._after_blank or HEADING.match(line)):
            self._list_offset = 0
        return False

    def _take_blank(self) -> None:
        self._after_blank = True
        if self._kind == "indented" and self._pending:
            self._pending.append("")
            return
        self._finish()
        if not self._after_fence:
            self.done.append(self._quote_prefix().rstrip())
        self._after_fence = False

    def _open_fence(self, match: re.Match[str]) -> None:
        lead, mark, info = match[1], match[2] or match[4], match[3] or match[5] or ""
        indent = len(lead.expandtabs(4))
        on_item = bool(lead.strip(" \t"))
        prefix = None
        if self._depth or on_item or (self._list_offset and indent >= 2):
            prefix = lead if on_item else " " * min(indent, self._list_offset)
        if on_item:
            self._list_offset = indent
        elif prefix is None:
            self._list_offset = 0
        self._fence = _OpenFence(mark, info, indent, prefix)

    def _take_fenced(self, line: str, opened: _OpenFence) -> bool:
        """Whether `line` belongs to the open fence."""
        for _ in range(self._depth):
            mark = _QUOTE_MARK.match(line)
            if not mark:
                self._finish()
                return False
            line = line[mark.end() :]
        if opened.is_closed_by(line):
            self._finish()
        else:
            self._pending.append(_dedented(line, opened.indent))
        return True

    def _finish(self) -> None:
        """Emit the pending block."""
        pending, opened, kind = self._pending, self._fence, self._kind
        self._pending, self._fence, self._kind = [], None, "text"
        if opened:
            self._emit_code(pending, opened.prefix, opened.info)
        elif kind == "indented":
            while not pending[-1].strip(" \t"):
                pending.pop()
            at_top = not self._depth and not self._list_offset
            code = [_dedented(line, self._list_offset + 4) for line in pending]
            self._emit_code(code, None if at_top else " " * self._list_offset)
            if not at_top:
                self.done.append(self._quote_prefix().rstrip())
        elif pending:
            self._emit(safe_lines(pending))

    def _emit(self, lines: list[str]) -> None:
        prefix = self._quote_prefix()
        self.done.extend(prefix + line for line in lines)
        self._after_fence = False

    def _emit_code(self, lines: list[str], prefix: str | None, info: str = "") -> None:
        if prefix is not None:
            self._emit([prefix + preformatted(lines)])
            return
        if self.done and self.done[-1]:
            self.done.append("")
        self.done += [fence(lines, info), ""]
        self._after_fence = True

    def _quote_prefix(self) -> str:
        return "> " * self._depth


def _unquoted(line: str) -> _Quoted:
    match = _QUOTE_MARKS.match(line) if ">" in line[:4] else None
    if not match:
        return _Quoted(0, line)
    return _Quoted(min(match[0].count(">"), _MAX_QUOTE_DEPTH), line[match.end() :])


def _dedented(line: str, columns: int) -> str:
    """`line` without up to `columns` columns of white space before it."""
    stripped = line.lstrip(" \t")
    indent = len(line) - len(stripped)
    if "\t" not in line[:indent]:
        return line[min(indent, columns) :]
    width = len(line[:indent].expandtabs(4))
    return " " * max(width - columns, 0) + stripped
