"""Text from a frame as HTML: every character means itself, but for the few marks that make Markdown readable.

Nothing that nbllm depends on makes HTML of Markdown (mistune comes with nbconvert, and changes its API with it), and
a comparison is read for its words: so code, headings, emphasis and bullets are formatted, and links, images, tables
and HTML stay the text that the model wrote. Nothing loads, nothing can be clicked. Line breaks and indentation are
elements and entities, for GitHub takes styles away.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import NamedTuple

from nbllm.markup.characters import plain_text

_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_SPACES = re.compile(" (?= )")  # HTML shows several as one
# The front ends look for maths in the page, and find none where an element ends the text.
_MATHS = re.compile(r"[$\\]")
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"#{1,6}[ ]+(?=\S)")
_BULLET = re.compile(r"(\s*)[-*+][ ]+(?=\S)")
# What a mark may span is bounded: looking for the end of each of many would take quadratic time.
_MARK = re.compile(
    r"(?P<ticks>`{1,3})(?P<code>[^`]{1,500})(?P=ticks)(?!`)"
    r"|\*\*(?P<strong>\S|\S.{0,500}?\S)\*\*"
    r"|(?<![\w*])\*(?P<em>[^\s*]|[^\s*][^*]{0,500}?[^\s*])\*(?![\w*])"
)


class Part(NamedTuple):
    """Consecutive lines of a text: a block of code without its fences, or whatever else."""

    is_code: bool
    lines: list[str]


def shown(text: str) -> str:
    """`text` without terminal sequences and control characters, and with visible bidirectional overrides."""
    return _BIDI.sub(lambda match: f"[U+{ord(match[0]):04X}]", plain_text(text)).expandtabs(4)


def literal(text: str) -> str:
    """`text`, which `shown` has seen, as HTML in which every character means itself."""
    return "<br>".join(map(_escaped, text.split("\n")))


def formatted(text: str) -> str:
    """`text`, which `shown` has seen, as HTML with its code, headings, emphasis and bullets."""
    pieces: list[str] = []
    for part in parts_of(text):
        if part.is_code:
            pieces.append(f"<pre><code>{html.escape(chr(10).join(part.lines))}</code></pre>")
        else:
            pieces.append("<br>".join(map(_line, part.lines)))
    return "".join(pieces)


def parts_of(text: str) -> Iterator[Part]:
    """The fenced blocks and what is between them; a fence that nothing closes reaches to the end."""
    lines: list[str] = []
    mark = ""
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if mark and line.strip().startswith(mark) and not line.strip().strip(mark[0]):
            yield Part(True, lines)
            lines, mark = [], ""
        elif fence and not mark:
            yield from _prose(lines)
            lines, mark = [], fence[1]
        else:
            lines.append(line)
    if mark:
        yield Part(True, lines)
    else:
        yield from _prose(lines)


def _prose(lines: list[str]) -> Iterator[Part]:
    """The lines without the blank ones around them: a block of code keeps its own distance."""
    full = [number for number, line in enumerate(lines) if line.strip()]
    if full:
        yield Part(False, lines[full[0] : full[-1] + 1])


def _line(line: str) -> str:
    if heading := _HEADING.match(line):
        return f"<strong>{_inline(line[heading.end() :])}</strong>"
    if bullet := _BULLET.match(line):
        return _escaped(f"{bullet[1]}• ") + _inline(line[bullet.end() :])
    return _inline(line)


def _inline(text: str) -> str:
    pieces: list[str] = []
    position = 0
    for match in _MARK.finditer(text):
        pieces.append(_escaped(text[position : match.start()]))
        position = match.end()
        if match["code"]:
            pieces.append(f"<code>{_escaped(match['code'])}</code>")
        else:
            tag = "strong" if match["strong"] else "em"
            pieces.append(f"<{tag}>{_inline(match[tag])}</{tag}>")
    return "".join(pieces) + _escaped(text[position:])


def _escaped(text: str) -> str:
    text = _MATHS.sub(lambda match: f"<span>{match[0]}</span>", html.escape(text))
    return _SPACES.sub("&nbsp;", text)
