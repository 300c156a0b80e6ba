"""One paragraph, heading, list item or table cell of a model's text, made safe.

Whatever a parser makes of the result, it holds no `<` or `&` but our own, no image, and no address that `safe_url` has
not spelled. What this file takes for code, a link or maths only decides how well it reads.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from typing import NamedTuple

from nbllm.markup.code import code_span
from nbllm.markup.links import safe_url
from nbllm.markup.maths import OPENING, maths_at

_TOKEN = re.compile(
    rf"(?P<maths>{OPENING})"
    r"|(?P<escape>\\[!-/:-@\[-`{-~])"
    r"|(?P<backslash>\\)"
    r"|(?P<code>`+)"
    r"|(?P<autolink><(?:https?://|mailto:)[^\s<>]{1,2000}>)"
    r"|(?P<break><br[ ]?/?>)"
    r"|(?P<less><)"
    r"|(?P<entity>&(?:\#[0-9]{1,7}|\#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});)"
    r"|(?P<ampersand>&)"
    r"|(?P<opening>!?\[)"
    r"|(?P<closing>\])"
    r"|(?P<tildes>~{3,})"
    r"|(?P<ats>@{2,})",
    re.IGNORECASE,
)
# Where a token may start. Literals only: this finds the few such places at the speed of C.
_CANDIDATE = re.compile(r"\$|\\|`|<|&|\[|\]|!\[|~~~|@@")
_ADDRESS = re.compile(r"://|www\.", re.IGNORECASE)
_OTHER_AUTOLINK = re.compile(r"(ftp|xmpp):", re.IGNORECASE)  # GitHub makes links of these
_DESTINATION = re.compile(
    r"\(\s{0,20}(?:<([^<>\n]{0,2000})>|([^\s()<>]{0,2000}(?:\([^\s()<>]{0,500}\)[^\s()<>]{0,500}){0,4}))"
    r"(?:\s{1,20}(?:\"[^\"]{0,300}\"|'[^']{0,300}'|\([^()]{0,300}\)))?\s{0,20}\)"
)
_BACKTICKS = re.compile("`+")
_ESCAPED = {character: f"&#{ord(character)};" for character in "`!@[]"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_LITERAL_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "'"}
_DEFINITION = re.compile(
    r" {0,3}\[([A-Za-z0-9][A-Za-z0-9 _.-]{0,60})\]:[ \t]+<?([^\s<>]{1,2000})>?"
    r"(?:[ \t]+(?:\"[^\"]*\"|'[^']*'|\([^()]*\)))?[ \t]*"
)
# An element around it: MathJax joins the text of a paragraph, escapes or not, but does not look over elements.
_DOLLAR = "<span>&#36;</span>"
_BACKSLASH = "<span>&#92;</span>"


def safe_inline(text: str, *, in_table: bool = False) -> str:
    """`text` made safe; its line breaks, but for those in code and maths, stay where they are."""
    return _Inline(text, in_table).converted() if _CANDIDATE.search(text) else _plain(text)


def safe_definition(line: str) -> str | None:
    """A link reference definition with an allowed address, spelled anew; None for any other line."""
    match = _DEFINITION.fullmatch(line) if "]:" in line else None
    address = safe_url(match[2]) if match else None
    return f"[{match[1]}]: {address}" if match and address else None


def _plain(text: str) -> str:
    return _OTHER_AUTOLINK.sub(r"\1\:", text) if ":" in text else text


class _Opening(NamedTuple):
    piece: int
    is_image: bool


class _Inline:
    def __init__(self, text: str, in_table: bool) -> None:
        self._text = text
        self._in_table = in_table
        self._pieces: list[str] = []
        self._openings: list[_Opening] = []
        self._images: list[tuple[int, int]] = []
        self._dollars: list[int] = []
        self._has_maths = False
        self._checked = 0
        self._in_address = False
        self._runs: dict[int, list[int]] | None = None

    def converted(self) -> str:
        text, position = self._text, 0
        while candidate := _CANDIDATE.search(text, position):
            match = _TOKEN.match(text, candidate.start())
            assert match, "every candidate is a token"
            if match.start() > position:
                self._pieces.append(_plain(text[position : match.start()]))
            position = self._token(match)
        self._pieces.append(_plain(text[position:]))
        if len(self._dollars) == 1 and not self._has_maths:
            self._pieces[self._dollars[0]] = r"\$"  # nothing to pair with: the readable form will do
        return "".join(self._pieces)

    def _token(self, match: re.Match[str]) -> int:
        """Add what the token becomes; where to go on."""
        handler = _HANDLERS[match.lastgroup or ""]
        end = handler(self, match)
        return match.end() if end is None else end

    def _maths(self, match: re.Match[str]) -> int | None:
        opening, start = match[0], match.start()
        if self._is_in_address(start):
            self._pieces.append("%24" * len(opening) if opening[0] == "$" else "%5C" + opening[1:])
            return None
        if found := maths_at(self._text, start, opening, in_table=self._in_table):
            if self._pieces and self._pieces[-1].endswith("$"):
                self._pieces.append(" ")  # `$a$$b$` would be display maths to a parser that looks for it first
            self._pieces.append(found.markdown)
            self._has_maths = True
            return found.end
        if opening[0] == "$":
            for _ in opening:
                self._literal_dollar()
        elif opening in ("\\(", "\\["):
            self._pieces.append(_ESCAPED.get(opening[1], opening))
        else:
            self._pieces.append(_BACKSLASH + opening[1:])
        return None

    def _is_in_address(self, position: int) -> bool:
        """Whether a parser may take what stands here for a part of a bare address.

        JupyterLab would put maths back into that address' attribute, where its quotes end it.
        """
        passed = self._text[self._checked : position]
        word = passed[_after_last_space(passed) :]
        self._in_address = bool(_ADDRESS.search(word)) or (self._in_address and len(word) == len(passed))
        self._checked = position
        return self._in_address

    def _literal_dollar(self) -> None:
        self._dollars.append(len(self._pieces))
        self._pieces.append(_DOLLAR)

    def _escape(self, match: re.Match[str]) -> None:
        character = match[0][1]
        if character == "$":
            self._literal_dollar()
        elif character == "\\":
            self._backslash(match)
        else:
            self._pieces.append(_ESCAPED.get(character, match[0]))

    def _backslash(self, match: re.Match[str]) -> None:
        following = self._text[match.end() : match.end() + 5]
        if match[0] == "\\" and following.startswith("\n"):
            self._pieces.append("\\")
        else:
            self._pieces.append(_BACKSLASH if following.startswith(("(", "[", "begin")) else "&#92;")

    def _code(self, match: re.Match[str]) -> int | None:
        length, start = len(match[0]), match.end()
        closings = self._backtick_runs().get(length, [])
        index = bisect_right(closings, start - 1)
        if index == len(closings):
            self._pieces.append("&#96;" * length)
            return None
        code = self._text[start : closings[index]].replace("\n", " ")
        if code[0] == code[-1] == " " and code.strip(" "):
            code = code[1:-1]
        if self._in_table:
            code = code.replace(r"\|", "|")
        self._pieces.append(code_span(code))
        return closings[index] + length

    def _backtick_runs(self) -> dict[int, list[int]]:
        if self._runs is None:
            self._runs = {}
            for run in _BACKTICKS.finditer(self._text):
                self._runs.setdefault(len(run[0]), []).append(run.start())
        return self._runs

    def _autolink(self, match: re.Match[str]) -> None:
        address = match[0][1:-1]
        url = safe_url(address)
        if url is None:
            self._pieces.append("&lt;")
            self._pieces.append(safe_inline(address))
            self._pieces.append("&gt;")
            return
        self._disarm_exclamation()
        self._pieces.append(f"[{url.replace('_', '&#95;')}]({url})")

    def _break(self, match: re.Match[str]) -> None:
        """The one line break that a table cell can have; elsewhere it could start a block of HTML."""
        self._pieces.append("<br>" if self._in_table else f"&lt;{match[0][1:]}")

    def _less(self, match: re.Match[str]) -> None:
        self._pieces.append("&lt;")

    def _entity(self, match: re.Match[str]) -> None:
        character = html.unescape(match[0])
        if character == "\xa0" or (len(character) == 1 and character > "\xa0" and character.isprintable()):
            self._pieces.append(character)
        else:
            self._pieces.append(_LITERAL_ENTITIES.get(character, f"&amp;{match[0][1:]}"))

    def _ampersand(self, match: re.Match[str]) -> None:
        self._pieces.append("&amp;")

    def _opening(self, match: re.Match[str]) -> None:
        self._disarm_exclamation()
        is_image = match[0] == "!["
        self._openings.append(_Opening(len(self._pieces), is_image))
        self._pieces.append("&#33;[" if is_image else "[")

    def _disarm_exclamation(self) -> None:
        if self._pieces and self._pieces[-1].endswith("!"):
            self._pieces[-1] = self._pieces[-1][:-1] + "&#33;"

    def _closing(self, match: re.Match[str]) -> int | None:
        opening = self._openings.pop() if self._openings else None
        following = self._text[match.end() : match.end() + 1]
        if following != "(":
            self._pieces.append(r"]\:" if following == ":" else "]")
            return match.end() + (following == ":")
        destination = _DESTINATION.match(self._text, match.end()) if opening else None
        url = safe_url(destination[1] or destination[2] or "") if destination else None
        if opening is None or destination is None or url is None:
            self._pieces.append(r"]\(")
            return match.end() + 1
        self._link(opening, url)
        return destination.end()

    def _link(self, opening: _Opening, url: str) -> None:
        pieces = self._pieces
        if opening.is_image:
            pieces[opening.piece] = "["
            if not "".join(pieces[opening.piece + 1 :]).strip():
                pieces.append("image")
            self._images.append((opening.piece, len(pieces)))
        else:
            for first, last in self._images:
                if first > opening.piece:  # a link cannot hold another: the picture's words stay
                    pieces[first] = pieces[last] = ""
            self._images.clear()
            self._openings.clear()
        pieces.append(f"]({url})")

    def _tildes(self, match: re.Match[str]) -> None:
        self._pieces.append(r"\~" * len(match[0]))

    def _ats(self, match: re.Match[str]) -> None:
        """JupyterLab marks the places of maths with `@@0@@`."""
        self._pieces.append("@" + "&#64;" * (len(match[0]) - 1))


def _after_last_space(text: str) -> int:
    position = len(text)
    while position and not text[position - 1].isspace():
        position -= 1
    return position


_HANDLERS = {name: getattr(_Inline, f"_{name}") for name in _TOKEN.groupindex}
