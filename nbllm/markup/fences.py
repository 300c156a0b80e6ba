"""The code in a model's answer: its fenced blocks, as CommonMark finds them.

HTML is looked through, for `nbllm.markup` shows it as text: what is taken here is what was shown as code.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from nbllm.markup.characters import normalized
from nbllm.markup.lines import HEADING

PYTHON = ("python", "py", "python3", "ipython", "")
"""What models write after the opening of a fence with Python in it; often nothing."""

_MAX_DEPTH = 10  # of lists and quotes in each other; a line costs as much time as there are
_OPENING = re.compile(r"(?P<mark>`{3,})(?P<info>[^`]*)$|(?P<tildes>~{3,})(?P<rest>.*)")
_ITEM = re.compile(r"(?:[-+*]|(?P<number>\d{1,9})[.)])(?=[ \t]|$)")
_UNDERLINE = re.compile(r"(?:=+|-+)[ \t]*$")


class Fence(NamedTuple):
    """One fenced block. `language` is the first word after its opening, `code` has no newline at its end."""

    language: str
    code: str


def fences(text: str) -> list[Fence]:
    """The fenced blocks of `text` in their order; one that is not closed goes on to the end."""
    parser = _Parser()
    lines = normalized(text).split("\n")
    if not lines[-1]:
        lines.pop()  # the text's last newline ends a line and begins none
    for line in lines:
        parser.feed(line)
    parser.close_fence()
    return parser.found


def main_code(text: str, languages: Collection[str] = PYTHON) -> str | None:
    """The code of `main_fence`."""
    found = main_fence(text, languages)
    return None if found is None else found.code


def main_fence(text: str, languages: Collection[str] = PYTHON) -> Fence | None:
    """The code that a person would copy out of `text`, or None if there is none.

    That is the only block whatever its language, or all blocks in one of `languages`, or else the longest. Blocks
    that name their language go before those that do not: these are often what the code prints.
    """
    found = [fence for fence in fences(text) if fence.code.strip()]
    if not found:
        return None
    wanted = [fence for fence in found if fence.language.lower() in languages]
    wanted = [fence for fence in wanted if fence.language] or wanted
    if len(found) == 1 or not wanted:
        longest = max(found, key=lambda fence: len(fence.code))
        return longest._replace(code=longest.code.strip("\n"))
    return Fence(wanted[0].language, "\n\n".join(dict.fromkeys(fence.code.strip("\n") for fence in wanted)))


class _Line:
    """A line, and how far marks of lists and quotes have been read off it. A tab goes to the next fourth column."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._position = self._column = 0
        self._is_in_tab = False
        self._measure()

    def _measure(self) -> None:
        text, index, column = self.text, self._position, self._column
        while index < len(text) and text[index] in " \t":
            column += 1 if text[index] == " " else 4 - column % 4
            index += 1
        self.start, self._start_column = index, column

    @property
    def indent(self) -> int:
        return self._start_column - self._column

    @property
    def is_blank(self) -> bool:
        return self.start == len(self.text)

    def skip(self, columns: int) -> None:
        """Pass up to `columns` of white space, perhaps a part of a tab."""
        while columns > 0 and self._position < self.start:
            width = 1 if self.text[self._position] == " " else 4 - self._column % 4
            self._is_in_tab = width > columns
            self._column += min(width, columns)
            self._position += not self._is_in_tab
            columns -= width

    def skip_mark(self, length: int) -> None:
        self._position, self._column = self.start + length, self._start_column + length
        self._is_in_tab = False
        self._measure()

    def rest(self) -> str:
        if self._is_in_tab:
            return " " * (4 - self._column % 4) + self.text[self._position + 1 :]
        return self.text[self._position :]


@dataclass(slots=True)
class _Container:
    """A quote, or a list item whose text stands `width` columns in."""

    width: int | None = None
    is_empty: bool = False

    def goes_on(self, line: _Line) -> bool:
        """Whether `line` belongs to it; reads off what says so."""
        if self.width is None:
            if line.indent > 3 or not line.text.startswith(">", line.start):
                return False
            line.skip_mark(1)
            line.skip(1)
        elif line.is_blank and self.is_empty:
            return False
        elif line.is_blank or line.indent >= self.width:
            line.skip(self.width)
        else:
            return False
        return True


@dataclass(slots=True)
class _OpenFence:
    mark: str
    language: str
    indent: int
    lines: list[str]


class _Parser:
    def __init__(self) -> None:
        self.found: list[Fence] = []
        self._containers: list[_Container] = []
        self._fence: _OpenFence | None = None
        self._in_paragraph = False

    def feed(self, text: str) -> None:
        line = _Line(text)
        depth = self._depth_of(line)
        if self._fence:
            if depth == len(self._containers):
                self._take_fenced(line, self._fence)
                return
            self.close_fence()
        self._take(line, depth)

    def close_fence(self) -> None:
        if self._fence:
            self.found.append(Fence(self._fence.language, "\n".join(self._fence.lines)))
            self._fence = None

    def _depth_of(self, line: _Line) -> int:
        """How many of the open containers `line` belongs to."""
        for depth, container in enumerate(self._containers):
            if not container.goes_on(line):
                return depth
        return len(self._containers)

    def _take_fenced(self, line: _Line, fence: _OpenFence) -> None:
        mark = line.text[line.start :].rstrip(" \t")
        if line.indent <= 3 and len(mark) >= len(fence.mark) and not mark.strip(fence.mark[0]):
            self.close_fence()
        else:
            line.skip(min(line.indent, fence.indent))
            fence.lines.append(line.rest())

    def _take(self, line: _Line, depth: int) -> None:
        in_paragraph = self._in_paragraph and depth == len(self._containers)
        opened = list(self._opened(line, depth, in_paragraph))
        is_text = line.indent > 3 or not self._starts_block(line, in_paragraph and not opened)
        if is_text and self._in_paragraph and not opened and not line.is_blank:
            return  # it continues the paragraph, also where it lacks the marks of the lists and quotes around it
        self._containers[depth:] = opened
        if line.is_blank:
            self._in_paragraph = False
            return
        for container in self._containers[-1:]:
            container.is_empty = False
        self._in_paragraph = is_text and line.indent <= 3
        if not is_text:
            self._open_fence(line)

    def _opened(self, line: _Line, depth: int, in_paragraph: bool) -> list[_Container]:
        """The quotes and list items that start on `line`, their marks read off it."""
        opened: list[_Container] = []
        while depth + len(opened) < _MAX_DEPTH and line.indent <= 3:
            if line.text.startswith(">", line.start):
                line.skip_mark(1)
                line.skip(1)
                opened.append(_Container())
            elif item := self._item(line, in_paragraph and not opened):
                opened.append(item)
            else:
                break
        return opened

    def _item(self, line: _Line, in_paragraph: bool) -> _Container | None:
        match = _ITEM.match(line.text, line.start)
        if not match or _is_rule(line):
            return None
        is_empty = not line.text[match.end() :].strip(" \t")
        if in_paragraph and (is_empty or match["number"] not in (None, "1")):
            return None
        width = line.indent + match.end() - match.start()
        line.skip_mark(match.end() - match.start())
        gap = line.indent if not is_empty and line.indent <= 4 else 1
        line.skip(gap)
        return _Container(width + gap, is_empty)

    def _starts_block(self, line: _Line, in_paragraph: bool) -> bool:
        """Whether `line` is a heading, a rule, or the opening of a fence."""
        if in_paragraph and _UNDERLINE.match(line.text, line.start):
            return True
        return bool(_OPENING.match(line.text, line.start) or HEADING.match(line.text, line.start) or _is_rule(line))

    def _open_fence(self, line: _Line) -> None:
        if match := _OPENING.match(line.text, line.start):
            words = (match["info"] or match["rest"] or "").split(maxsplit=1)
            self._fence = _OpenFence(match["mark"] or match["tildes"], words[0] if words else "", line.indent, [])


def _is_rule(line: _Line) -> bool:
    marks = line.text[line.start :].replace(" ", "").replace("\t", "")
    return len(marks) >= 3 and marks[0] in "-*_" and not marks.strip(marks[0])
