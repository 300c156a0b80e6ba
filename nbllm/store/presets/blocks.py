'''The texts of a Modelfile, which may go over several lines.

SYSTEM You are Mario.          to the end of the line, without the spaces around it
SYSTEM "You are Mario."        with the spaces between the quotes; also over lines if no other quote is in it
SYSTEM """You are Mario."""    to the first line that ends with three quotes, exactly
SYSTEM <<END                   the lines before the one that is END, exactly: our own form, which any text fits
'''

from __future__ import annotations

import re

from nbllm.errors import InvalidRequestError

_FENCE = '"""'
_HERE = re.compile(r"<<([A-Za-z_][A-Za-z0-9_]*)")


class Lines:
    """Gives the lines one after another. `number` is that of the last, from 1."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self.number = 0

    def next(self) -> str | None:
        if self.number == len(self._lines):
            return None
        self.number += 1
        return self._lines[self.number - 1]

    def value(self, rest: str) -> str:
        """The text that begins with what is left of this line.

        Raises:
            InvalidRequestError: it does not end.
        """
        rest = rest.lstrip()
        if rest.startswith(_FENCE):
            return self._block(rest.removeprefix(_FENCE), _FENCE)
        if rest.startswith('"'):
            return self._quoted(rest[1:])
        here = _HERE.fullmatch(rest.rstrip())
        return rest.rstrip() if here is None else self._here(here[1])

    def _quoted(self, first: str) -> str:
        if first.rstrip().endswith('"'):  # Ollama too takes the quotes in between as they are
            return first.rstrip()[:-1]
        text = self._block(first, '"')
        if '"' in text:
            raise self._not_closed(self.number - text.count("\n"), '"')
        return text

    def _block(self, first: str, end: str) -> str:
        start = self.number
        found: list[str] = []
        line: str | None = first
        while line is not None:
            if line.rstrip().endswith(end):
                return "\n".join([*found, line.rstrip()[: -len(end)]])
            found.append(line)
            line = self.next()
        raise self._not_closed(start, end)

    def _here(self, word: str) -> str:
        start = self.number
        found: list[str] = []
        while (line := self.next()) is not None:
            if line.strip() == word:
                return "\n".join(found)
            found.append(line)
        raise InvalidRequestError(
            f"line {start}: no line below is {word[:100]}, which ends what <<{word[:100]} begins; "
            'write """ before and after the text'
        )

    @staticmethod
    def _not_closed(start: int, end: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"line {start}: {end} is opened, and no line ends with the {end} that closes it; "
            'write """ before the text and """ after it'
        )


def written(text: str) -> str:
    """The text so that `Lines.value` gives it back: in the plainest of Ollama's forms that does, else in our own."""
    lines = text.split("\n")
    if text and text == text.strip() and len(lines) == 1 and text.isprintable() and not text.startswith(('"', "<<")):
        return text
    if not any(line.rstrip().endswith(_FENCE) for line in lines[:-1]):
        return f"{_FENCE}{text}{_FENCE}"
    word = _free_word({line.strip() for line in lines})
    return f"<<{word}\n{text}\n{word}"


def _free_word(taken: set[str]) -> str:
    word, number = "END", 1
    while word in taken:
        number += 1
        word = f"END{number}"
    return word
