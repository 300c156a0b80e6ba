"""What comes out of a chat template."""

from __future__ import annotations

from dataclasses import dataclass

from nbllm.chat.callformats import CallFormat
from nbllm.chat.marks import Segment


@dataclass(frozen=True, slots=True)
class AssistantSpan:
    """Where the content of an assistant's message stands, unchanged, in the rendered text."""

    message: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as text.

    Attributes:
        segments: the text in pieces that say whether control texts in them are control tokens.
        text: the pieces joined.
        notes: what was done to the messages on the way, in words.
        opens_reasoning: the text ends inside a think tag, so that the answer starts as reasoning.
        assistant_spans: of assistants' messages with `tokens`, those whose content the template left as it is.
        stop: texts that end an answer where no end-of-turn token will.
        calls: how the model was asked to write a call of a tool; None without tools.
    """

    segments: tuple[Segment, ...]
    text: str
    notes: tuple[str, ...] = ()
    opens_reasoning: bool = False
    assistant_spans: tuple[AssistantSpan, ...] = ()
    stop: tuple[str, ...] = ()
    calls: CallFormat | None = None
