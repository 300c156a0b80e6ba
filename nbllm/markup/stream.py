"""A model's text as Markdown while it is still arriving."""

from __future__ import annotations

from nbllm.markup.blocks import Blocks
from nbllm.markup.characters import NormalizedStream


class SafeStream:
    """`markdown()` is `safe_markdown` of all that was pushed, without doing the finished blocks again."""

    def __init__(self) -> None:
        self._blocks = Blocks()
        self._line: list[str] = []
        self._normalized = NormalizedStream()

    def push(self, delta: str) -> None:
        """Take the next piece of the text, cut anywhere."""
        first, *others = self._normalized.push(delta).split("\n")
        self._line.append(first)
        for line in others:
            self._blocks.feed("".join(self._line))
            self._line = [line]

    def markdown(self) -> str:
        """Safe Markdown of the text so far; an open fence is shown closed."""
        return "\n".join(self._blocks.done + self._blocks.preview("".join(self._line)))
