"""Finds where the contents of turns stand in a rendered text.

Looking for the content is not enough: it may stand there twice, or be part of another. So the template runs again with
a private-use mark on each side of the content, and the marks tell, if the text is otherwise the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nbllm.chat.budget import ExhaustedError, ProgramError
from nbllm.chat.folding import Turn
from nbllm.chat.marks import Marks

_MAX_RUNS = 32
Render = Callable[[Sequence[Turn]], str]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A half-open range of characters."""

    start: int
    end: int


class SpanFinder:
    """Finds contents in `text`, which is what `render` made of `turns`."""

    def __init__(self, render: Render, marks: Marks, turns: Sequence[Turn], text: str) -> None:
        self._render = render
        self._marks = marks
        self._turns = turns
        self._text = text
        self._runs = _MAX_RUNS

    def find(self, positions: Sequence[int]) -> dict[int, Bounds]:
        """The bounds of the turns at these positions, without those whose content the template changes.

        All are marked at once; if that changes the text, one of them is looked into, and the halves are tried alone.
        """
        if not positions or self._runs == 0:
            return {}
        self._runs -= 1
        found = self._marked(self._turns, positions)
        if found is not None or len(positions) == 1:
            return found or {}
        middle = len(positions) // 2
        return {**self.find(positions[:middle]), **self.find(positions[middle:])}

    def start_of_last(self) -> int | None:
        """Where the last turn's content starts, also if the template trims it."""
        last = len(self._turns) - 1
        trimmed = [*self._turns[:-1], replace(self._turns[-1], content=self._turns[-1].content.strip())]
        found = self._marked(self._turns, [last]) or self._marked(trimmed, [last]) or {}
        return found[last].start if last in found else None

    def _marked(self, turns: Sequence[Turn], positions: Sequence[int]) -> dict[int, Bounds] | None:
        marked = list(turns)
        borders: dict[str, int] = {}
        for position in positions:
            pair = self._marks.new(), self._marks.new()
            borders |= dict.fromkeys(pair, position)
            marked[position] = replace(turns[position], content=_bordered(turns[position].content, pair))
        try:
            text = self._render(marked)
        except ExhaustedError:
            self._runs = 0
            return None
        except ProgramError:
            return None
        places = _places(text, borders, self._text)
        return None if places is None else _contents(places, turns, self._text)


def _bordered(content: str, pair: tuple[str, str]) -> str:
    """The marks stand inside the white space, so that a template that trims, trims as before."""
    lead, body, trail = _parts(content)
    return f"{lead}{pair[0]}{body}{pair[1]}{trail}"


def _parts(content: str) -> tuple[str, str, str]:
    body = content.strip()
    lead = len(content) - len(content.lstrip()) if body else 0
    return content[:lead], body, content[lead + len(body) :]


def _places(text: str, borders: Mapping[str, int], bare: str) -> dict[int, list[int]] | None:
    """Where the borders of each position stand in `text` without them; None if that is not `bare`."""
    places: dict[int, list[int]] = {}
    kept: list[str] = []
    length = 0
    for piece in re.split(f"([{''.join(borders)}])", text):
        if piece in borders:
            places.setdefault(borders[piece], []).append(length)
        else:
            kept.append(piece)
            length += len(piece)
    return places if "".join(kept) == bare else None


def _contents(places: Mapping[int, list[int]], turns: Sequence[Turn], text: str) -> dict[int, Bounds]:
    bounds: dict[int, Bounds] = {}
    for position, found in places.items():
        content = turns[position].content
        start = found[0] - len(_parts(content)[0])
        if len(found) == 2 and start >= 0 and text.startswith(content, start):
            bounds[position] = Bounds(start, start + len(content))
    return bounds
