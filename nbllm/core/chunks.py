"""What an engine answers, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "tool_calls", "interrupted", "timeout", "error"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability under the model's own distribution, and its likeliest rivals.

    `data` holds the token's bytes: a token may be a part of a character.
    """

    token: int
    data: bytes
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call: the first of each `index` has its id and name, all have new text of its arguments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. `cached_tokens` of the prompt were not evaluated again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that one request took, as the engine measured them."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    first_token_s: float = 0.0
    decode_s: float = 0.0

    def tokens_per_s(self, completion_tokens: int) -> float:
        """The decoding speed; the first token belongs to the prefill."""
        return (completion_tokens - 1) / self.decode_s if completion_tokens > 1 and self.decode_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of one answer. The last piece of an answer has a `finish_reason`, `usage` and `timings`.

    Attributes:
        index: which of the `n` answers, which text of an embedding request, or which choice.
        text: new text of the answer.
        reasoning: new text of the thinking before the answer.
        tokens: the ids generated since the last chunk, the end-of-turn token left out.
        tool_calls: new pieces of the calls that the model asks for.
        logprobs: one entry for each of `tokens` when asked for.
        prompt_logprobs: of each prompt token, given its predecessors, when asked for; once an answer. Nothing comes
            before the first, whose logprob is nan; one that the engine put there to begin the prompt has no entry.
        error: what ended the answer, with finish_reason "error".
        seed: the seed that was used, in the last chunk.
        embedding: a vector, float32, of length 1 unless the request wants the model's own.
        token_logprobs: for a ScoreRequest, the log-likelihood of each token of the continuation; for a ChoiceRequest,
            of each token of the choice and of the end of the turn.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    tokens: tuple[int, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    error: BaseException | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    seed: int | None = None
    embedding: Any = None
    token_logprobs: tuple[TokenLogprob, ...] | None = None
