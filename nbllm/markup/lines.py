"""What the parsers of blocks, each with its own way through a text, look for in one line."""

from __future__ import annotations

import re

HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")
"""The beginning of a line without its indent."""


def indent_of(line: str) -> int:
    """The columns of white space before the text of `line`."""
    stripped = line.lstrip(" \t")
    return len(line[: len(line) - len(stripped)].expandtabs(4))
