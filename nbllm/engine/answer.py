"""What one sequence has said: tokens in, chunks out, in groups that do not wake the reader for every token."""

from __future__ import annotations

from dataclasses import dataclass, field

from nbllm.chat.callparser import CallParser, Parsed
from nbllm.chat.reasoning import ReasoningSplitter
from nbllm.core import Chunk, FinishReason, Timings, TokenLogprob, ToolCallDelta, Usage
from nbllm.engine.textstream import StopStream, Utf8Stream

GROUP_S = 0.04
"""Tokens leave at most this often, the first at once: waking a reader for each costs a tenth of the speed."""


@dataclass(slots=True)
class Clocks:
    """When things happened to one sequence, by the lane's clock; 0 is "not yet"."""

    submitted: float
    admitted: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0

    def timings(self) -> Timings:
        admitted = self.admitted or self.last_token or self.submitted
        first = self.first_token or admitted
        return Timings(
            queue_s=admitted - self.submitted,
            prefill_s=first - admitted,
            first_token_s=first - self.submitted,
            decode_s=max(0.0, self.last_token - first) if self.first_token else 0.0,
        )


@dataclass(slots=True)
class Answer:
    """The text of one sequence as it grows.

    Attributes:
        index: which of the request's answers.
        splitter: takes the thinking apart from the answer; None when all text is answer.
        calls: takes the calls of tools out of the answer; None without tools.
        trims_start: white space before the first word is dropped; a base model continues "Assistant:" with a space.
        prompt_logprobs: to go out with the next chunk.
        is_stopped: a stop text has appeared, or the last call that there may be is whole.
    """

    index: int
    stop: StopStream
    splitter: ReasoningSplitter | None = None
    calls: CallParser | None = None
    trims_start: bool = False
    num_tokens: int = 0
    num_reasoning: int = 0
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    _utf8: Utf8Stream = field(default_factory=Utf8Stream)
    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _tokens: list[int] = field(default_factory=list)
    _logprobs: list[TokenLogprob] = field(default_factory=list)
    _call_deltas: list[ToolCallDelta] = field(default_factory=list)
    _sent_at: float = float("-inf")

    @property
    def is_stopped(self) -> bool:
        return self.stop.stopped_by is not None or (self.calls is not None and self.calls.is_full)

    @property
    def in_reasoning(self) -> bool:
        return self.splitter is not None and self.splitter.in_reasoning

    def add(self, token: int, piece: bytes, logprob: TokenLogprob | None) -> None:
        self.num_tokens += 1
        self.num_reasoning += self.in_reasoning
        self._tokens.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        self._take(self._utf8.push(piece))

    def due(self, now: float) -> Chunk | None:
        """What has gathered, if it is time to send it."""
        if now - self._sent_at < GROUP_S or not self._has_news:
            return None
        self._sent_at = now
        return self._gathered()

    def finish(
        self, reason: FinishReason, usage: Usage, timings: Timings, seed: int | None, error: BaseException | None = None
    ) -> Chunk:
        """The last chunk."""
        if self.stop.stopped_by is None:
            self._take(self._utf8.finish())
            self._take_split_end()
            if self.calls is not None:
                self._take_parsed(self.calls.finish())
            self._text.append(self.stop.finish())
        if reason == "stop" and self.calls is not None and self.calls.num_calls:
            reason = "tool_calls"
        return self._gathered(reason, usage, timings, seed, error)

    @property
    def _has_news(self) -> bool:
        return bool(self._logprobs or self._call_deltas) or any(self._text) or any(self._reasoning)

    def _take(self, text: str) -> None:
        if not text:
            return
        if self.splitter is not None:
            split = self.splitter.push(text)
            self._reasoning.append(split.reasoning)
            text = split.content
        if self.trims_start:
            text = text.lstrip()
            self.trims_start = not text
        self._take_content(text)

    def _take_content(self, text: str) -> None:
        if self.calls is None:
            self._text.append(self.stop.push(text))
        else:
            self._take_parsed(self.calls.push(text))

    def _take_parsed(self, parsed: Parsed) -> None:
        self._text.append(self.stop.push(parsed.content))
        if self.stop.stopped_by is None:
            self._call_deltas += parsed.calls

    def _take_split_end(self) -> None:
        if self.splitter is not None:
            split = self.splitter.finish()
            self._reasoning.append(split.reasoning)
            self._take_content(split.content)

    def _gathered(
        self,
        reason: FinishReason | None = None,
        usage: Usage | None = None,
        timings: Timings | None = None,
        seed: int | None = None,
        error: BaseException | None = None,
    ) -> Chunk:
        chunk = Chunk(
            index=self.index,
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tokens=tuple(self._tokens),
            tool_calls=tuple(self._call_deltas),
            logprobs=tuple(self._logprobs),
            prompt_logprobs=self.prompt_logprobs,
            finish_reason=reason,
            usage=usage,
            timings=timings,
            seed=seed,
            error=error,
        )
        self._text, self._reasoning, self._tokens, self._logprobs = [], [], [], []
        self._call_deltas, self.prompt_logprobs = [], ()
        return chunk
