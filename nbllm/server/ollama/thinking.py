"""Takes the thinking out of an answer to token ids, which an engine does for chats only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nbllm.chat.reasoning import ReasoningSplitter
from nbllm.core import Chunk
from nbllm.server.ollama.fitting import Fitted


def filter_for(made: Fitted) -> Callable[[Chunk], Chunk]:
    """What each chunk of the answer goes through."""
    if made.opens_reasoning is None or (made.request.constraint is not None and not made.opens_reasoning):
        return _unchanged
    splitter = ReasoningSplitter(open_at_start=made.opens_reasoning)

    def split(chunk: Chunk) -> Chunk:
        now = splitter.push(chunk.text)
        thinking, text = now.reasoning, now.content
        if chunk.finish_reason is not None:
            rest = splitter.finish()
            thinking, text = thinking + rest.reasoning, text + rest.content
        return replace(chunk, text=text, reasoning=chunk.reasoning + thinking)

    return split


def _unchanged(chunk: Chunk) -> Chunk:
    return chunk
