r"""Maths in a model's text, spelled so that no parser can take it for anything else.

JupyterLab cuts `$..$`, `$$..$$` and `\begin..\end` out of the source before it parses Markdown and puts them back into
the HTML afterwards; nbconvert's parser lets them run over fences to a delimiter far below. Hence maths is emitted
only when it is closed, balanced and on one line, and every other delimiter is written as an entity.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_DISPLAY_LINES = 60
"""Of a display formula, the first and the last among them."""
_MAX_LENGTH = 4000
_ENVIRONMENT = r"\\begin\{(?:equation|align|alignat|gather|multline|eqnarray|flalign|math|displaymath)\*?\}"
OPENING = r"\$\$?|\\[(\[]|" + _ENVIRONMENT

_DOLLARS = re.compile(r"(?<!\\)\$\$?")
_UP_TO_PAREN = re.compile(r"(?:[^\\]|\\[^()])*+(?=\\\))", re.DOTALL)
_UP_TO_BRACKET = re.compile(r"(?:[^\\]|\\[^\[\]])*+(?=\\\])", re.DOTALL)
_DISPLAY_LINE = re.compile(r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(\$\$|\\\[|" + _ENVIRONMENT + ")(.*)")

_COMMENT = re.compile(r"(?<!\\)%[^\n]*")
_LOOKS_LIKE = re.compile(r"[\\^_=+<>/|{}0-9]|[^\x00-\x7f]|\w\(|^\W*[A-Za-z]{1,3}(?:\W+[A-Za-z])*\W*$")
# Commands that make links, attributes or new commands; addresses and marks that a Markdown parser would act on.
_FORBIDDEN = re.compile(
    r"\\(?:href|url|html\w*|style|class|cssId|data|require|includegraphics|unicode|csname|catcode|texttip|mmlToken"
    r"|[egx]?def|let|futurelet|(?:re)?new\w+|provide\w+|Declare\w+|input|include|write)(?![A-Za-z])"
    r"|://|www\.|xmpp:|@@|~~~|`|(?<!\\)\$",
    re.IGNORECASE,
)
_NESTING = re.compile(r"\\(begin|end)\{([^{}]*)\}|\\.|([{}])", re.DOTALL)
_LINE_SPACING = re.compile(r"\\\\[ ]?(?:\[[^\[\]]{0,12}\]|(?=[\[(]))")
_AS_ENTITY = re.compile(r"&(?=[\w#])")
_REPLACEMENTS = (
    ("<", r"\lt "),
    ('"', "''"),
    ("](", "] ("),
    ("]:", "] :"),
    ("![", "! ["),
)


class Maths(NamedTuple):
    """A formula as it can be emitted, and where it ends in the source."""

    markdown: str
    end: int


def maths_at(text: str, start: int, opening: str, *, in_table: bool = False) -> Maths | None:
    """The formula that `opening` starts at `start`, None if that is no formula or not a harmless one."""
    body = start + len(opening)
    end = _end_of_body(text, body, opening)
    if end is None or end - body > _MAX_LENGTH:
        return None
    content = text[body:end]
    if opening == "$" and not _is_tight(content, text[end + 1 : end + 2]):
        return None
    if opening not in ("$$", "\\[") and not _LOOKS_LIKE.search(content):
        return None
    formula = _safe_formula(content, in_table=in_table)
    if formula is None:
        return None
    if opening.startswith("\\begin"):
        closing = opening.replace("begin", "end")
        return Maths(f"{opening}{formula}{closing}", end + len(closing))
    mark = "$" if opening in ("$", "\\(") else "$$"
    return Maths(f"{mark}{formula}{mark}", end + len(opening))


def display_end(lines: list[str], first: int) -> int:
    """The last of the lines that a display formula takes which starts line `first`; `first` itself without one."""
    match = _DISPLAY_LINE.match(lines[first])
    if not match:
        return first
    opening, rest = match.groups()
    closing = {"$$": "$$", "\\[": "\\]"}.get(opening, opening.replace("begin", "end"))
    if closing in rest:
        return first
    for index in range(first + 1, min(first + MAX_DISPLAY_LINES, len(lines))):
        if closing in lines[index]:
            return index
    return first


def _end_of_body(text: str, body: int, opening: str) -> int | None:
    if opening.startswith("$"):
        found = _DOLLARS.search(text, body)
        return found.start() if found and found[0] == opening else None
    if opening.startswith("\\begin"):
        end = text.find(opening.replace("begin", "end"), body, body + _MAX_LENGTH)
        return end if end >= 0 and opening not in text[body:end] else None
    pattern = _UP_TO_PAREN if opening == "\\(" else _UP_TO_BRACKET
    match = pattern.match(text, body)
    return match.end() if match else None


def _is_tight(content: str, following: str) -> bool:
    """Pandoc's rule, by which `$5 and $6` is money."""
    return bool(content) and not content[0].isspace() and not content[-1].isspace() and not following.isdigit()


def _safe_formula(content: str, *, in_table: bool) -> str | None:
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        content = content.replace(entity, character)
    formula = " ".join(_COMMENT.sub("", content).split())
    if in_table:
        formula = formula.replace(r"\|", r"\vert ")
    if not formula or formula.endswith(("\\", "$")) or _FORBIDDEN.search(formula) or not _is_balanced(formula):
        return None
    formula = _LINE_SPACING.sub(lambda _: "\\\\ ", formula)
    for old, new in _REPLACEMENTS:
        formula = formula.replace(old, new)
    return _AS_ENTITY.sub("& ", formula).strip()


def _is_balanced(formula: str) -> bool:
    open_names: list[str] = []
    for verb, name, brace in _NESTING.findall(formula):
        if verb == "begin" or brace == "{":
            open_names.append(name or brace)
        elif (verb or brace) and (not open_names or open_names.pop() != (name or "{")):
            return False
    return not open_names
