"""Where two texts differ, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

_EAST_ASIAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # no spaces between words: each character counts as one
_WORD = re.compile(rf"\s+|(?:[{_EAST_ASIAN}]|(?:(?![{_EAST_ASIAN}])\w)+|[^\w\s])\s*")
_MAX_WORDS = 4_000  # SequenceMatcher's time grows with the square


class Span(NamedTuple):
    kind: Literal["same", "removed", "added"]
    text: str


def word_diff(old: str, new: str) -> list[Span]:
    """`new` as what it shares with `old`, lacks of it and has besides; white space alone is no difference.

    Where more than 4,000 words are left between the common beginning and the common end, they count as all different.
    """
    before, after = _WORD.findall(old), _WORD.findall(new)
    start = _num_common(before, after)
    end = _num_common(before[start:][::-1], after[start:][::-1])
    spans = [Span("same", "".join(after[:start]))]
    spans += _between(before[start : len(before) - end], after[start : len(after) - end])
    spans.append(Span("same", "".join(after[len(after) - end :])))
    return [span for span in spans if span.text]


def _num_common(old: Sequence[str], new: Sequence[str]) -> int:
    for number, (left, right) in enumerate(zip(old, new, strict=False)):
        if left.strip() != right.strip():
            return number
    return min(len(old), len(new))


def _between(old: Sequence[str], new: Sequence[str]) -> list[Span]:
    if max(len(old), len(new)) > _MAX_WORDS:
        return [Span("removed", "".join(old)), Span("added", "".join(new))]
    spans = []
    matcher = SequenceMatcher(None, [word.strip() for word in old], [word.strip() for word in new])
    for verb, i1, i2, j1, j2 in matcher.get_opcodes():
        if verb == "equal":
            spans.append(Span("same", "".join(new[j1:j2])))
        else:
            spans += [Span("removed", "".join(old[i1:i2])), Span("added", "".join(new[j1:j2]))]
    return spans
