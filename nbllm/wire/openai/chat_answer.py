"""`POST /v1/chat/completions`: the answer, whole or as a stream.

A stream, one event a line; each choice has its own role event first and its finish reason last:

    {"choices": [{"delta": {"role": "assistant", "content": ""}, ...}]}
    {"choices": [{"delta": {"reasoning_content": "..."}, ...}]}          thinking, if any
    {"choices": [{"delta": {"content": "..."}, ...}]}
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": ..., "type": "function", "function": ...}]}, ...}]}
    {"choices": [{"delta": {}, "finish_reason": "stop", ...}]}
    {"choices": [], "usage": ..., "timings": ...}                        if asked for
    [DONE]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nbllm.core import Chunk, ToolCallDelta
from nbllm.core.toolcalls import GatheredCall
from nbllm.wire.openai.chat import ChatCall
from nbllm.wire.openai.ending import Gathered, check, ending
from nbllm.wire.openai.head import Head
from nbllm.wire.openai.logprobs import chat_logprobs
from nbllm.wire.openai.stream import AnswerStream
from nbllm.wire.openai.usage import Costs


@dataclass
class _Choice(Gathered):
    is_call: bool = False  # it was promised to be one, though it may be cut before there is one to show
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, GatheredCall] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        super().add(chunk)
        self.reasoning.append(chunk.reasoning)
        for delta in chunk.tool_calls:
            self.calls.setdefault(delta.index, GatheredCall()).add(delta)

    def body(self, index: int) -> dict[str, Any]:
        logprobs = chat_logprobs(self.logprobs) if self.logprobs else None
        return {"index": index, "message": self._message(), "logprobs": logprobs, **ending(self.last)}

    def _message(self) -> dict[str, Any]:
        text, reasoning = "".join(self.text), "".join(self.reasoning)
        content = text or None if self.calls or self.is_call else text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self.calls:
            message["tool_calls"] = [_call_body(self.calls[index]) for index in sorted(self.calls)]
        if reasoning:
            message["reasoning_content"] = reasoning
        return message


class ChatAnswer:
    """A whole answer, gathered from its chunks."""

    def __init__(self, head: Head, call: ChatCall) -> None:
        self._head = head
        is_promised = call.request.tool_choice == "required"
        self._choices = [_Choice(is_call=is_promised) for _ in range(call.request.sampling.n)]
        self._costs = Costs()

    def add(self, chunk: Chunk) -> None:
        """Take a chunk in. Raises what the chunk says went wrong, if it does."""
        check(chunk)
        self._choices[chunk.index].add(chunk)
        self._costs.add(0, chunk)

    def usage(self) -> dict[str, Any]:
        """What it cost so far; whole once it is complete."""
        return self._costs.usage()

    def body(self) -> dict[str, Any]:
        return {
            **self._head.body("chat.completion"),
            "choices": [choice.body(index) for index, choice in enumerate(self._choices)],
            "usage": self._costs.usage(),
            "timings": self._costs.timings(),
        }


class ChatStream(AnswerStream):
    """An answer's events, made from its chunks as they come."""

    def __init__(self, head: Head, call: ChatCall) -> None:
        super().__init__(head, "chat.completion.chunk", call.include_usage)
        self._num_choices = call.request.sampling.n

    def begin(self) -> list[bytes]:
        """The events before any text; they may be written together with the first chunk's."""
        return [self._event(index, {"role": "assistant", "content": ""}) for index in range(self._num_choices)]

    def events(self, chunk: Chunk) -> list[bytes]:
        """None, for a chunk without news. Raises what the chunk says went wrong, if it does."""
        self._take(0, chunk)
        deltas = _deltas(chunk)
        events = [self._event(chunk.index, delta) for delta in deltas[:-1]]
        if deltas:
            logprobs = chat_logprobs(chunk.logprobs) if chunk.logprobs else None
            events.append(self._event(chunk.index, deltas[-1], logprobs))
        if chunk.finish_reason is not None:
            events.append(self._event(chunk.index, {}, last=chunk))
        return events

    def _event(self, index: int, delta: dict[str, Any], logprobs: Any = None, last: Chunk | None = None) -> bytes:
        return self._writer.choice({"index": index, "delta": delta, "logprobs": logprobs, **ending(last)})


def _call_body(call: GatheredCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _deltas(chunk: Chunk) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    if chunk.reasoning:
        deltas.append({"reasoning_content": chunk.reasoning})
    if chunk.text:
        deltas.append({"content": chunk.text})
    deltas += [{"tool_calls": [_call_delta(delta)]} for delta in chunk.tool_calls]
    if chunk.logprobs and not deltas:  # of tokens whose text is held back
        deltas.append({"content": ""})
    return deltas


def _call_delta(delta: ToolCallDelta) -> dict[str, Any]:
    """Later pieces have no name at all: clients that add the pieces up would add an empty one, or take it."""
    if delta.name is None:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}
