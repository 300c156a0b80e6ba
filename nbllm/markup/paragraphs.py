"""Lines of text without a blank line or a fence among them, cut into paragraphs, list items, headings and tables.

Code, links and maths may run over the lines of such a part but never from one part into the next.
"""

from __future__ import annotations

import re

from nbllm.markup.inline import safe_definition, safe_inline
from nbllm.markup.maths import display_end

LIST_ITEM = re.compile(r"([ \t]*)([-*+]|\d{1,9}[.)])([ \t]+|$)")
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_CELL_END = re.compile(r"(?<!\\)\|")


def safe_lines(lines: list[str]) -> list[str]:
    """The lines made safe; fewer where code or maths ran over several."""
    result: list[str] = []
    index = 0
    while index < len(lines):
        end = _part_end(lines, index)
        result += _safe_part(lines, index, end)
        index = end
    return result


def _safe_part(lines: list[str], start: int, end: int) -> list[str]:
    if _starts_table(lines, start):
        rule = lines[start + 1]
        return [_safe_row(lines[start]), rule, *(_safe_row(line) for line in lines[start + 2 : end])]
    definition = safe_definition(lines[start])
    if definition is not None:
        return [definition]
    return safe_inline("\n".join(lines[start:end])).split("\n")


def _part_end(lines: list[str], start: int) -> int:
    if _starts_table(lines, start):
        end = start + 2
        while end < len(lines) and "|" in lines[end]:
            end += 1
        return end
    if _stands_alone(lines[start]):
        return start + 1
    end = display_end(lines, start) + 1
    while end < len(lines) and not _starts_part(lines, end):
        end = display_end(lines, end) + 1
    return end


def _starts_part(lines: list[str], index: int) -> bool:
    line = lines[index]
    return bool(LIST_ITEM.match(line)) or _stands_alone(line) or _starts_table(lines, index)


def _stands_alone(line: str) -> bool:
    return bool(_HEADING.match(line)) or safe_definition(line) is not None


def _starts_table(lines: list[str], index: int) -> bool:
    return (
        index + 1 < len(lines)
        and "|" in lines[index]
        and "-" in lines[index + 1]
        and _TABLE_RULE.fullmatch(lines[index + 1]) is not None
    )


def _safe_row(line: str) -> str:
    return "|".join(safe_inline(cell, in_table=True) for cell in _CELL_END.split(line))
