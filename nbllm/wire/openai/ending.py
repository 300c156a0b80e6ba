"""How one choice of an answer ends, in OpenAI's words, and when its end is a failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nbllm.core import Chunk, FinishReason, TokenLogprob
from nbllm.errors import ParameterError

# "timeout" and "interrupted" end an answer before its own end. OpenAI's only word for that is "length"; "stop" would
# tell a client that the text is whole.
_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "timeout": "length",
    "interrupted": "length",
}


def check(chunk: Chunk) -> None:
    """Raises what a chunk says went wrong; that time was up before the first token is wrong too."""
    if chunk.error is not None:
        raise chunk.error
    if chunk.finish_reason == "timeout" and chunk.usage is not None and not chunk.usage.completion_tokens:
        raise ParameterError("timeout", "it passed before the first token; give the answer more time, or leave it out")


def ending(chunk: Chunk | None) -> dict[str, Any]:
    """A choice's `finish_reason`, None without a last chunk; and `ended_by`, where that says more."""
    reason = None if chunk is None else chunk.finish_reason
    if reason is None:
        return {"finish_reason": None}
    told = _REASONS[reason]
    return {"finish_reason": told} if told == reason else {"finish_reason": told, "ended_by": reason}


@dataclass
class Gathered:
    """A choice, gathered from its chunks."""

    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    last: Chunk | None = None

    def add(self, chunk: Chunk) -> None:
        self.text.append(chunk.text)
        self.logprobs += chunk.logprobs
        if chunk.finish_reason is not None:
            self.last = chunk
