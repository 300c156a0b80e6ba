"""Code cut into pieces by what they are, for the colours of a style sheet."""

from __future__ import annotations

import time
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pygments.lexer import Lexer

_MAX_LENGTH = 50_000
_MAX_CPU_S = 1.0  # the longest code takes a third of it, but on some texts lexers take time by the square of the length
_OTHER_NAMES = {"ipython": "python", "ipython3": "python", "jsonc": "json", "jsonl": "json"}
# White space needs no colour, and what a lexer takes for an error is often only newer than the lexer.
_COLOURLESS = ("w", "err", "x")


class Piece(NamedTuple):
    """A part of some code. `kind` is Pygments' short name of a CSS class, "" for plain text."""

    kind: str
    text: str


def highlighted(code: str, language: str) -> list[Piece]:
    """The pieces of `code`, each of another kind than the one before; joined they are `code`.

    It is one plain piece when Pygments knows no such language (nothing is guessed) or the code is very long.
    """
    lexer_class = _lexer_class(language.lower()) if language and len(code) <= _MAX_LENGTH else None
    pieces = _lexed(lexer_class, code) if lexer_class else []
    return pieces or ([Piece("", code)] if code else [])


def _lexed(lexer_class: type[Lexer], code: str) -> list[Piece]:
    """The pieces, or none when the lexer fails or makes another text of `code`."""
    tokens: list[tuple[str, str]] = []
    length, end_s = 0, time.thread_time() + _MAX_CPU_S
    try:
        for kind, text in lexer_class(stripnl=False).get_tokens(f"{code}\n"):
            tokens.append((_css_class(kind), text))
            length += len(text)
            if length <= len(code) and time.thread_time() > end_s:
                tokens.append(("", f"{code}\n"[length:]))
                break
    except Exception:  # noqa: BLE001  # five hundred lexers, and none of them was written for text that means harm
        return []
    pieces = [Piece(css, "".join(text for _, text in group)) for css, group in groupby(tokens, itemgetter(0))]
    if "".join(piece.text for piece in pieces) != code + "\n":
        return []
    pieces[-1] = pieces[-1]._replace(text=pieces[-1].text[:-1])
    return [piece for piece in pieces if piece.text]


@lru_cache(maxsize=256)
def _lexer_class(language: str) -> type[Lexer] | None:
    from pygments.lexers import find_lexer_class_by_name

    name = _OTHER_NAMES.get(language, language)
    return find_lexer_class_by_name(name) if name in _names() else None


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    """The languages that Pygments itself knows; to look for other packages' lexers takes a second."""
    from pygments.lexers import get_all_lexers

    return frozenset(alias for _, aliases, _, _ in get_all_lexers(plugins=False) for alias in aliases)


@lru_cache(maxsize=1024)
def _css_class(kind: Any) -> str:
    from pygments.token import STANDARD_TYPES

    while kind not in STANDARD_TYPES:  # a lexer may make finer kinds of its own
        kind = kind.parent
    css = STANDARD_TYPES[kind]
    return "" if css in _COLOURLESS else css
