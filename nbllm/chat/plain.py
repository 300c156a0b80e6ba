"""The stated form that a base model gets, which has no chat template: labelled paragraphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nbllm.chat.folding import Turn
from nbllm.chat.spans import Bounds

NOTE = "no chat template: plain form, 'User: ...' and 'Assistant: ...', that ends where the next 'User:' would begin"
STOP = ("\nUser:",)
_LABELS = {"user": "User: ", "assistant": "Assistant: ", "tool": "Tool: "}


@dataclass(frozen=True, slots=True)
class PlainText:
    """The text, and where each turn's content stands in it."""

    text: str
    bounds: tuple[Bounds, ...]


def plain_text(turns: Sequence[Turn], ending: str) -> PlainText:
    """Write turns as paragraphs; a system text stands without a label. `ending` follows the last turn."""
    pieces: list[str] = []
    bounds: list[Bounds] = []
    length = 0
    for position, turn in enumerate(turns):
        label = _LABELS.get(turn.role, "")
        after = ending if position == len(turns) - 1 else "\n" if label else "\n\n"
        start = length + len(label)
        bounds.append(Bounds(start, start + len(turn.content)))
        pieces += label, turn.content, after
        length = bounds[-1].end + len(after)
    return PlainText("".join(pieces), tuple(bounds))
