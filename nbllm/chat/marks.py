"""Keeps what people wrote from becoming control tokens.

A control text in a message (`<|im_end|>`) is swapped for one private-use character before the template runs, and back
afterwards into a segment of its own that is tokenised as plain text. What is left of the rendered text came from the
template or holds no control text, so its control texts are real.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from nbllm.chat.budget import ProgramError

# Planes 15 and 16 first: icon fonts use U+E000 to U+F8FF, so texts do.
_PRIVATE = ((0xF0000, 0xFFFFD), (0x100000, 0x10FFFD), (0xE000, 0xF8FF))
_PRIVATE_USE = re.compile("[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in _PRIVATE) + "]")


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt; control texts in it are control tokens only if `special`."""

    text: str
    special: bool


class ControlTexts:
    """Finds the texts of a vocabulary's control tokens, whole or cut by the border of a message."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(text for text in texts if text.strip())
        self._lengths: dict[str, tuple[int, ...]] = {}  # by the first one or two characters, longest first
        by_start: dict[str, set[int]] = {}
        for text in self._texts:
            by_start.setdefault(text[:2], set()).add(len(text))
        for start, lengths in by_start.items():
            single = {1} if start[0] in by_start else set()
            self._lengths[start] = tuple(sorted(lengths | single, reverse=True))
        starts = "".join(sorted({text[0] for text in self._texts}))
        self._starts = re.compile(f"[{re.escape(starts)}]") if starts else None
        self._heads = frozenset(text[:cut] for text in self._texts for cut in range(1, len(text)))
        self._tails = frozenset(text[cut:] for text in self._texts for cut in range(1, len(text)))
        self._longest = max(map(len, self._texts), default=0)

    def spans(self, content: str) -> list[tuple[int, int]]:
        """Where `content` holds control texts, and where it begins or ends with a part of one.

        A template may trim a message and write `|>` after it, so the ends count without their white space.
        """
        if self._starts is None:
            return []
        spans = list(self._whole(content))
        self._add_head(content, spans)
        self._add_tail(content, spans)
        return spans

    def _whole(self, content: str) -> Iterator[tuple[int, int]]:
        assert self._starts is not None
        end = 0
        for match in self._starts.finditer(content):
            start = match.start()
            if start < end:
                continue
            lengths = self._lengths.get(content[start : start + 2]) or self._lengths.get(content[start]) or ()
            for length in lengths:
                if content[start : start + length] in self._texts:
                    end = start + length
                    yield start, end
                    break

    def _add_head(self, content: str, spans: list[tuple[int, int]]) -> None:
        start = len(content) - len(content.lstrip())
        limit = spans[0][0] if spans else len(content)
        for length in range(min(self._longest - 1, limit - start), 0, -1):
            if content[start : start + length] in self._tails:
                spans.insert(0, (start, start + length))
                return

    def _add_tail(self, content: str, spans: list[tuple[int, int]]) -> None:
        end = len(content.rstrip())
        limit = spans[-1][1] if spans else 0
        for length in range(min(self._longest - 1, end - limit), 0, -1):
            if content[end - length : end] in self._heads:
                spans.append((end - length, end))
                return


class Marks:
    """The private-use characters that stand for other texts during one rendering."""

    def __init__(self, control: ControlTexts, texts: Iterable[str]) -> None:
        """`texts` are all that the rendering may write: a character that one of them holds is never a mark."""
        taken = {char for text in texts if not text.isascii() for char in _PRIVATE_USE.findall(text)}
        codes = chain.from_iterable(range(low, high + 1) for low, high in _PRIVATE)
        self._free = (chr(code) for code in codes if chr(code) not in taken)
        self._control = control
        self._by_text: dict[str, str] = {}
        self._by_mark: dict[str, str] = {}

    def new(self) -> str:
        """A mark that stands for nothing."""
        mark = next(self._free, None)
        if mark is None:
            raise ProgramError("the messages hold too many different control texts")
        return mark

    def swapped(self, content: str) -> str:
        """`content` with a mark for each control text in it."""
        pieces: list[str] = []
        end = 0
        for start, stop in self._control.spans(content):
            pieces += content[end:start], self._mark(content[start:stop])
            end = stop
        return content if not pieces else "".join(pieces) + content[end:]

    def _mark(self, text: str) -> str:
        if text not in self._by_text:
            mark = self.new()
            self._by_text[text] = mark
            self._by_mark[mark] = text
        return self._by_text[text]

    def restored(self, text: str, offsets: Sequence[int]) -> tuple[tuple[Segment, ...], list[int]]:
        """The segments of a rendered text, and where the sorted `offsets` into it are in the joined segments."""
        if not self._by_mark:
            return ((Segment(text, True),) if text else ()), list(offsets)
        segments: list[Segment] = []
        moved: list[int] = []
        length = position = 0
        for piece in re.split(f"([{''.join(self._by_mark)}])", text):
            original = self._by_mark.get(piece)
            while len(moved) < len(offsets) and offsets[len(moved)] < position + len(piece):
                moved.append(length + offsets[len(moved)] - position)
            if piece:
                segments.append(Segment(piece if original is None else original, original is None))
                length += len(segments[-1].text)
                position += len(piece)
        return _merged(segments), moved + [length] * (len(offsets) - len(moved))


def _merged(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Two marked texts in a row are one plain text: between them nothing may become a token either."""
    merged: list[Segment] = []
    for segment in segments:
        if merged and not segment.special and not merged[-1].special:
            merged[-1] = Segment(merged[-1].text + segment.text, False)
        else:
            merged.append(segment)
    return tuple(merged)
