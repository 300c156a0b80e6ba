"""What generate and chat answer: lines of a stream, or one object, which is a stream's last line with all text in it.

    {"model": "smollm2", "created_at": "...Z", "response": "He", "done": false}
    {"model": "smollm2", "created_at": "...Z", "response": "", "done": true, "done_reason": "stop", "context": [...],
     "total_duration": ns, "load_duration": ns, "prompt_eval_count": 9, "prompt_eval_duration": ns, "eval_count": 2,
     "eval_duration": ns}

A chat has `"message": {"role": "assistant", "content": "He"}` in the place of `response`, and no context.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from nbllm.core import Chunk, FinishReason, Timings, TokenLogprob, Usage
from nbllm.core.toolcalls import GatheredCall
from nbllm.wire.openai.ending import check
from nbllm.wire.openai.logprobs import chat_entries
from nbllm.wire.openai.usage import Costs

Form = Literal["generate", "chat"]
NDJSON = "application/x-ndjson"
# A call of tools is a good end to Ollama's clients; an answer that was cut short is as long as it was allowed to be.
_REASONS: dict[FinishReason, str] = {"stop": "stop", "tool_calls": "stop"}
_CUT = "length"


def rfc3339(seconds: float) -> str:
    """A time since 1970 in UTC, to the microsecond: what clients in all languages parse."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def nanoseconds(seconds: float) -> int:
    """At least 1: clients divide by durations."""
    return max(1, round(seconds * 1e9))


def line(body: dict[str, Any]) -> bytes:
    """One line of NDJSON: an encoder escapes line ends."""
    return msgspec.json.encode(body) + b"\n"


def error_body(message: str) -> dict[str, Any]:
    return {"error": message}


def error_line(message: str) -> bytes:
    """The last line of a stream that failed after its headers were sent."""
    return line(error_body(message.encode("utf-8", errors="replace").decode()))


def held_body(form: Form, model: str, now: float, reason: Literal["load", "unload"]) -> dict[str, Any]:
    """The answer to a request without a prompt, which loads or unloads."""
    said = _said(form, _Pending())
    return {"model": model, "created_at": rfc3339(now), **said, "done": True, "done_reason": reason}


@dataclass(slots=True)
class _Pending:
    """What has come and was not sent."""

    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def is_news(self) -> bool:
        return any(self.text) or any(self.thinking) or bool(self.calls or self.logprobs)


class Answer:
    """One answer, taken in chunk by chunk; given out line by line, or whole with `last`.

    Args:
        model: as the client named it.
        shows_thinking: False leaves the thinking out, for a client that has asked for none.
    """

    def __init__(self, form: Form, model: str, *, shows_thinking: bool = True) -> None:
        self._form, self._model = form, model
        self._shows_thinking = shows_thinking
        self._context: list[int] | None = None
        self._pending = _Pending()
        self._calls: dict[int, GatheredCall] = {}
        self._costs = Costs()
        self._last: Chunk | None = None

    def follow(self, prompt_tokens: Sequence[int]) -> None:
        """Tell the ids of these and of the answer at the end, as `context`."""
        self._context = list(prompt_tokens)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk in. Raises what the chunk says went wrong, if it does."""
        check(chunk)
        self._costs.add(0, chunk)
        pending = self._pending
        pending.text.append(chunk.text)
        pending.logprobs += chunk.logprobs
        if self._shows_thinking:
            pending.thinking.append(chunk.reasoning)
        if self._context is not None:
            self._context += chunk.tokens
        for delta in chunk.tool_calls:
            if delta.index not in self._calls:
                self._complete_calls()
            self._calls.setdefault(delta.index, GatheredCall()).add(delta)
        if chunk.finish_reason is not None:
            self._last = chunk
            self._complete_calls()

    def line(self, now: float) -> bytes:
        """What has come since the last line, as a line; b"" when nothing has."""
        if not self._pending.is_news:
            return b""
        return line({**self._body(now), "done": False})

    def last(self, now: float, *, total_s: float, load_s: float) -> dict[str, Any]:
        """The end, with all that was not given out as lines."""
        end = self._last or Chunk(finish_reason="interrupted")
        body = {**self._body(now), "done": True, "done_reason": _REASONS.get(end.finish_reason or "stop", _CUT)}
        if self._context is not None:
            body["context"] = self._context
        return body | _durations(end.usage or Usage(), end.timings or Timings(), total_s, load_s)

    def usage(self) -> dict[str, Any]:
        """What it cost so far, for the log and the counters."""
        return self._costs.usage()

    def _body(self, now: float) -> dict[str, Any]:
        pending, self._pending = self._pending, _Pending()
        body = {"model": self._model, "created_at": rfc3339(now), **_said(self._form, pending)}
        if pending.logprobs:
            body["logprobs"] = chat_entries(pending.logprobs)
        return body

    def _complete_calls(self) -> None:
        """Clients expect a call in one piece."""
        for index in sorted(self._calls):
            call = _call_body(index, self._calls[index])
            if call is not None:
                self._pending.calls.append(call)
        self._calls.clear()


def _call_body(index: int, call: GatheredCall) -> dict[str, Any] | None:
    """None for one whose arguments were cut short: nobody can call it."""
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(arguments, dict) and call.name):
        return None
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}}


def _said(form: Form, pending: _Pending) -> dict[str, Any]:
    text, thinking = "".join(pending.text), "".join(pending.thinking)
    thought = {"thinking": thinking} if thinking else {}
    if form == "generate":
        return {"response": text, **thought}
    calls = {"tool_calls": pending.calls} if pending.calls else {}
    return {"message": {"role": "assistant", "content": text, **thought, **calls}}


def _durations(usage: Usage, timings: Timings, total_s: float, load_s: float) -> dict[str, Any]:
    return {
        "total_duration": nanoseconds(total_s),
        "load_duration": nanoseconds(load_s),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(timings.prefill_s),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(timings.decode_s),
    }
