"""What the streams of both kinds of answers have in common."""

from __future__ import annotations

from typing import Any

from nbllm.core import Chunk
from nbllm.wire import sse
from nbllm.wire.openai.ending import check
from nbllm.wire.openai.head import EventWriter, Head
from nbllm.wire.openai.usage import Costs


class AnswerStream:
    """An answer's events, made from its chunks as they come."""

    def __init__(self, head: Head, kind: str, include_usage: bool) -> None:
        self._writer = EventWriter(head, kind, include_usage)
        self._include_usage = include_usage
        self._costs = Costs()

    def usage(self) -> dict[str, Any]:
        """What it cost so far; whole once every choice has ended."""
        return self._costs.usage()

    def finish(self) -> list[bytes]:
        """The usage if it was asked for, and the end."""
        usage = [self._writer.usage(self._costs.usage(), self._costs.timings())] if self._include_usage else []
        return [*usage, sse.DONE]

    def _take(self, prompt: int, chunk: Chunk) -> None:
        check(chunk)
        self._costs.add(prompt, chunk)
