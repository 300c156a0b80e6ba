"""Streamed events of another server as chunks.

The last chunk of an answer waits for the end of the stream: only there a server says how many tokens it used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from nbllm.core import Chunk, FinishReason, Timings, ToolCallDelta, Usage
from nbllm.errors import EngineError
from nbllm.wire.outgoing.likelihoods import logprobs
from nbllm.wire.outgoing.parsing import count, entries, number, parsed, text
from nbllm.wire.outgoing.refusals import Refusal, one_line, refusal_of

_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "abort": "interrupted",  # vLLM's
}
_END = "[DONE]"


class StreamReader:
    """Reads the events of one stream, which answers `num_answers` times.

    Attributes:
        is_done: whether the server said that nothing follows.
        refused: the error that the server sent instead of going on.
    """

    def __init__(self, num_answers: int) -> None:
        self.is_done = False
        self.refused: Refusal | None = None
        self._reasons: dict[int, str] = {}
        self._num_answers = num_answers
        self._usage, self._timings = Usage(), Timings()

    @property
    def is_complete(self) -> bool:
        """Whether every answer has ended."""
        return len(self._reasons) == self._num_answers

    def read(self, data: str) -> list[Chunk]:
        """The new pieces in one event.

        Raises:
            EngineError: it is no event of such a stream.
        """
        if data.strip() == _END:
            self.is_done = True
            return []
        event = parsed(data)
        if not isinstance(event, dict):
            raise EngineError(f"the server sent what is no event of a chat: {one_line(data[:100])!r}")
        if event.get("error"):
            self.is_done = True
            self.refused = refusal_of(200, event)
            return []
        self._note_numbers(event)
        chunks = [self._piece(choice) for choice in entries(event, "choices")]
        return [chunk for chunk in chunks if chunk is not None]

    def last_chunks(self, seed: int | None, timings: Timings) -> list[Chunk]:
        """One for each answer that ended, and an error for each that did not."""
        timings = replace(
            timings,
            prefill_s=self._timings.prefill_s or timings.prefill_s,
            decode_s=self._timings.decode_s or timings.decode_s,
        )
        chunks = []
        for index in range(self._num_answers):
            reason, error = self._end(index)
            usage = self._usage if index == 0 else replace(self._usage, completion_tokens=0, reasoning_tokens=0)
            chunks.append(
                Chunk(index=index, finish_reason=reason, error=error, usage=usage, timings=timings, seed=seed)
            )
        return chunks

    @property
    def usage(self) -> Usage:
        """Of all answers together."""
        return self._usage

    def _end(self, index: int) -> tuple[FinishReason, EngineError | None]:
        reason = self._reasons.get(index)
        if reason is None:
            num_ended = len(self._reasons)
            return "error", EngineError(f"of {self._num_answers} answers the server brought {num_ended} to an end")
        if reason == "content_filter":
            return "error", EngineError("the server withheld the rest of the answer: its content filter ended it")
        return _REASONS.get(reason, "stop"), None

    def _note_numbers(self, event: dict[str, Any]) -> None:
        usage, timings = event.get("usage"), event.get("timings")
        if isinstance(timings, dict):
            self._timings = Timings(
                prefill_s=number(timings, "prompt_ms") / 1000, decode_s=number(timings, "predicted_ms") / 1000
            )
        if isinstance(usage, dict):
            self._usage = Usage(
                prompt_tokens=count(usage, "prompt_tokens"),
                completion_tokens=count(usage, "completion_tokens"),
                cached_tokens=count(usage.get("prompt_tokens_details"), "cached_tokens") or count(timings, "cache_n"),
                reasoning_tokens=count(usage.get("completion_tokens_details"), "reasoning_tokens"),
            )

    def _piece(self, choice: object) -> Chunk | None:
        """What one choice adds; a server that answers whole has a `message` where a stream has a `delta`."""
        if not isinstance(choice, dict):
            return None
        index = count(choice, "index")
        if index >= self._num_answers:
            return None
        if isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]:
            self._reasons[index] = choice["finish_reason"]
        part = choice.get("delta") or choice.get("message") or choice
        chunk = Chunk(
            index=index,
            text=text(part, "content", "text") or text(part, "refusal"),
            reasoning=text(part, "reasoning_content", "reasoning"),
            tool_calls=_calls(part),
            logprobs=logprobs(choice),
        )
        return chunk if chunk.text or chunk.reasoning or chunk.tool_calls or chunk.logprobs else None


def _calls(part: object) -> tuple[ToolCallDelta, ...]:
    return tuple(
        ToolCallDelta(
            index=count(call, "index") if "index" in call else position,
            id=text(call, "id") or None,
            name=text(call.get("function"), "name") or None,
            arguments=_arguments(call.get("function")),
        )
        for position, call in enumerate(entries(part, "tool_calls"))
        if isinstance(call, dict)
    )


def _arguments(function: object) -> str:
    """JSON as text; some servers send the object itself."""
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else msgspec.json.encode(arguments).decode()


def vectors(body: bytes, num_texts: int) -> tuple[list[list[float]], Usage]:
    """The embeddings of an answer in the order of the texts.

    Raises:
        EngineError: it does not hold one for each.
    """
    answer = parsed(body)
    found: dict[int, list[float]] = {}
    for position, entry in enumerate(entries(answer, "data")):
        vector = entries(entry, "embedding")
        if vector and all(isinstance(value, int | float) for value in vector):
            found[count(entry, "index") if "index" in entry else position] = vector
    if sorted(found) != list(range(num_texts)) or len({len(vector) for vector in found.values()}) != 1:
        raise EngineError(f"the server did not answer with one vector for each of {num_texts:,} texts")
    usage = Usage(prompt_tokens=count(answer.get("usage"), "prompt_tokens"))
    return [found[index] for index in range(num_texts)], usage
