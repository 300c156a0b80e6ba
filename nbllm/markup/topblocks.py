"""Where a Markdown text that is still arriving can be cut: what stands before a cut does not change any more.

It is decided line by line, without parsing. A part between two cuts may hold several blocks, but no block is in two
parts; where a line alone does not tell, there is no cut.
"""

from __future__ import annotations

import re

from nbllm.markup.lines import HEADING, indent_of
from nbllm.markup.nodeparser import DISPLAY_OPENINGS, FENCE, ends_in_fence

_ITEM = re.compile(r"(?:[-+*]|([0-9]{1,9})[.)])(?:[ \t]+|$)")
_RULE = re.compile(r"([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_NO_ITEM = re.compile(r"[ ]?(?:[^\s\-+*\d]|[-+*]\S|\d+(?:[^\d.)]|[.)]\S)|\d{10})")
_NO_CODE = re.compile(r"[ ]{0,3}\S")
_ENOUGH_TO_TELL = 16  # characters of a line for the two above
_MAX_LOOKS = 8


class TopBlocks:
    """Takes normalised text, gives out the sources of the parts that are finished."""

    def __init__(self) -> None:
        self._partial: list[str] = []  # the line that has no end yet
        self._partial_length = 0
        self._begin()

    @property
    def tail(self) -> str:
        """What is in no part yet."""
        return "".join(self._lines) + "".join(self._partial)

    def push(self, text: str) -> list[str]:
        """Take the next piece of the text; the parts that are finished by it."""
        done: list[str] = []
        first, *others = text.split("\n")
        self._add_to_line(first, done)
        for line in others:
            self._feed(self._whole_line(), done)
            self._add_to_line(line, done)
        return done

    def finish(self) -> list[str]:
        """The last part, if there is one."""
        last = "".join(self._lines) + self._whole_line()
        self._begin()
        return [last] if last.strip(" \t\n") else []

    def _begin(self) -> None:
        self._lines: list[str] = []
        self._fence = ""  # the mark of the one that all lines from here on belong to
        self._after_blank = False
        self._last_indent = 0
        self._in_list = False  # perhaps: what looks like an item may go on with a paragraph
        self._item_width = 0  # if known: a line with this indent is surely in the list's last item
        self._has_formula = False
        self._looks = 0

    def _add_to_line(self, text: str, done: list[str]) -> None:
        if not text:
            return
        before = self._partial_length
        self._partial.append(text)
        self._partial_length += len(text)
        if self._after_blank and before < _ENOUGH_TO_TELL and self._is_outside("".join(self._partial)):
            self._cut(done)

    def _whole_line(self) -> str:
        line = "".join(self._partial)
        self._partial, self._partial_length = [], 0
        return line

    def _cut(self, done: list[str]) -> None:
        if self._lines:
            done.append("".join(self._lines))
            self._begin()

    def _feed(self, line: str, done: list[str]) -> None:
        text, indent = line.strip(" \t"), indent_of(line)
        if self._fence:
            self._lines.append(f"{line}\n")
            if indent <= 3 and len(text) >= len(self._fence) and not text.strip(self._fence[0]):
                self._cut(done)
        elif text:
            if self._starts_anew(line, text, indent):
                self._cut(done)
            self._take(line, text, indent)
            if len(self._lines) == 1 and indent <= 3 and HEADING.match(text):
                self._cut(done)
        elif self._lines:
            self._lines.append(f"{line}\n")
            self._after_blank = self._in_list or self._last_indent > 3
            if not self._after_blank:
                self._cut(done)

    def _is_outside(self, line: str) -> bool:
        """Whether what begins with `line`, after a blank one, can be in no open list and no open code."""
        return bool((_NO_ITEM if self._in_list else _NO_CODE).match(line))

    def _starts_anew(self, line: str, text: str, indent: int) -> bool:
        if self._after_blank:
            return self._is_outside(f"{line}\n")
        if indent > (1 if self._in_list else 3):
            return False
        if HEADING.match(text) or FENCE.match(text):
            return True
        if self._in_list:
            return text.startswith(">")
        return not self._has_formula and _is_clear_item(text)

    def _take(self, line: str, text: str, indent: int) -> None:
        is_first = not self._lines or self._after_blank
        self._lines.append(f"{line}\n")
        self._last_indent, self._after_blank = indent, False
        if text.startswith(DISPLAY_OPENINGS):
            self._has_formula = True
        self._note_item(_item(text) if indent <= 3 else None, text, indent, is_first)
        if indent <= 3 and (mark := FENCE.match(text)) and self._is_at_top(indent):
            self._fence = mark[0]

    def _note_item(self, item: re.Match[str] | None, text: str, indent: int, is_first: bool) -> None:
        if item:
            self._in_list = True
        if self._item_width and indent >= self._item_width:
            return
        is_sure = is_first or self._item_width or _is_clear_item(text)
        if item and item[0] != text and is_sure and not self._has_formula:
            self._item_width = indent + len(item[0].expandtabs(4))
        else:
            self._item_width = 0

    def _is_at_top(self, indent: int) -> bool:
        """Whether the fence that the last line opens is in no list."""
        if not self._in_list:
            return True
        if (self._item_width and indent >= self._item_width) or self._looks == _MAX_LOOKS:
            return False
        self._looks += 1  # few, for this is not done line by line
        return ends_in_fence("".join(self._lines))


def _item(text: str) -> re.Match[str] | None:
    return None if _RULE.match(text) else _ITEM.match(text)


def _is_clear_item(text: str) -> bool:
    """Whether it is an item also after a paragraph's line."""
    item = _item(text)
    return item is not None and item[0] != text and int(item[1] or 1) == 1
