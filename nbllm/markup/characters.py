"""Which characters of a model's text may be shown at all."""

from __future__ import annotations

import re

_LINE_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")

# String types (OSC, DCS, SOS, PM, APC) end at ST or BEL. Their content excludes every control, so that an
# unterminated one hides nothing and many of them take linear time.
_TERMINAL_SEQUENCES = re.compile(
    "(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x08\x0a-\x1f\x7f-\x9f]*(?:\x07|\x1b\\\\|\x9c)"
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|\x1b[ -/]+[0-~]"
    "|\x1b[0-Z\\\\^-~]"
)


def normalized(text: str) -> str:
    """One kind of line break, no other control character than tab, nothing that UTF-8 cannot carry.

    Browsers and parsers disagree on what the others are: JavaScript's `^` matches after U+2028, Python's does not.
    """
    return encodable(_CONTROLS.sub("", _LINE_BREAKS.sub("\n", text)))


def encodable(text: str) -> str:
    """Nothing that UTF-8 cannot carry: half a character becomes a replacement for one."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def plain_text(text: str) -> str:
    """`text` for a terminal: escape sequences and control characters other than tab and newline are gone."""
    return normalized(_TERMINAL_SEQUENCES.sub("", text))


class NormalizedStream:
    """`normalized` of a text that arrives in pieces, cut anywhere."""

    def __init__(self) -> None:
        self._after_return = False

    def push(self, text: str) -> str:
        """The next piece, normalised; a line break of two characters that was cut is one all the same."""
        if not text:
            return ""
        rest = text.removeprefix("\n") if self._after_return else text
        self._after_return = text.endswith("\r")
        return normalized(rest)


class PlainStream:
    """`text()` is `plain_text` of all that was pushed, without doing the finished lines again.

    No escape sequence that `plain_text` takes out goes over the end of a line.
    """

    def __init__(self) -> None:
        self._done: list[str] = []
        self._line: list[str] = []

    def push(self, delta: str) -> None:
        """Take the next piece of the text, cut anywhere."""
        first, *others = delta.split("\n")
        self._line.append(first)
        for line in others:
            self._done.append(plain_text("".join(self._line) + "\n"))
            self._line = [line]

    def text(self) -> str:
        return "".join(self._done) + plain_text("".join(self._line))
