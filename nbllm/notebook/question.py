"""`%chat what is x?` is a question to the model, where IPython would take the last `?` for its help."""

from __future__ import annotations

import re

_ASKED = re.compile(
    r"(?P<before>\s*(?:[\w\s.,()\[\]'\"*]+=\s*)?)%(?P<magic>chat|explain)[ \t]+(?P<prose>(?!\?+\s*$)\S.*\?)\s*"
)


def keep_question_marks(lines: list[str]) -> list[str]:
    """An input transformer for IPython: such lines become calls, all others stay."""
    if not lines or lines[0].startswith("%%") or not any(_ASKED.fullmatch(line) for line in lines):
        return lines
    starts = _starts(lines)
    return [_as_call(line) if number in starts else line for number, line in enumerate(lines, 1)]


def _as_call(line: str) -> str:
    match = _ASKED.fullmatch(line)
    if match is None:
        return line
    return f"{match['before']}get_ipython().run_line_magic({match['magic']!r}, {match['prose']!r})\n"


def _starts(lines: list[str]) -> set[int]:
    """The numbers of the lines that begin a statement; the others are inside a string or brackets."""
    from IPython.core.inputtransformer2 import make_tokens_by_line

    return {tokens[0].start[0] for tokens in make_tokens_by_line(lines)}
