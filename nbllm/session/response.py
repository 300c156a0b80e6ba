"""An answer, whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbllm.chat import constraints
from nbllm.core import Chunk, Constraint, FinishReason, Message, Timings, TokenLogprob, ToolCall, Usage
from nbllm.core.toolcalls import GatheredCall
from nbllm.markup.characters import plain_text
from nbllm.markup.reasoning import fold_reasoning
from nbllm.markup.safe import safe_markdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a model answered. `str(response)` is its text, and a notebook shows it as Markdown made safe.

    Attributes:
        text: the answer, without the reasoning before it.
        reasoning: what the model thought first, "" for most models.
        parsed: the Python value of an answer that was asked for as JSON; None if it was cut short.
        tool_calls: the functions that the model wants called; nothing here calls them. With finish_reason "length" the
            arguments of the last one may be cut short.
        finish_reason: "stop", "tool_calls", "length" (cut by max_tokens or the context), "interrupted", "timeout" or
            "error".
        usage: token counts; of all choices together when there are several.
        timings: seconds.
        logprobs: one entry a token when asked for.
        tokens: the generated ids.
        seed: that was used; the same seed and shapes give the same text.
        model: the model's name.
        error: what ended it, with finish_reason "error".
        choices: all answers when `n` was more than 1, this one first; else empty.
    """

    text: str
    reasoning: str = ""
    parsed: Any = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: tuple[int, ...] = field(default=(), repr=False)
    seed: int | None = None
    model: str = ""
    error: BaseException | None = None
    choices: tuple[Response, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.text

    @property
    def message(self) -> Message:
        """The answer as a turn of a conversation; it remembers its token ids, so that a next turn starts sooner."""
        return Message(
            "assistant",
            self.text,
            reasoning=self.reasoning or None,
            tokens=self.tokens or None,
            tool_calls=self.tool_calls,
        )

    def _repr_markdown_(self) -> str:
        folded = fold_reasoning(self.reasoning, done=True) + "\n\n" if self.reasoning else ""
        return folded + safe_markdown("\n\n".join(filter(None, (self.text, _fenced(self.tool_calls)))))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(plain_text("\n\n".join(filter(None, (self.text, _as_json(self.tool_calls))))))


class Collector:
    """Gathers the chunks of one answer.

    Args:
        begun: the beginning that the chunks go on from.
    """

    def __init__(self, model: str, constraint: Constraint | None = None, begun: Message | None = None) -> None:
        self._model, self._constraint = model, constraint
        self._chunks: list[Chunk] = []
        if begun is not None:
            self._chunks.append(Chunk(text=begun.content, reasoning=begun.reasoning or "", tokens=begun.tokens or ()))

    def add(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)

    @property
    def is_finished(self) -> bool:
        return bool(self._chunks) and self._chunks[-1].finish_reason is not None

    @property
    def error(self) -> BaseException | None:
        return self._chunks[-1].error if self._chunks else None

    def response(self, choices: Sequence[Response] = ()) -> Response:
        """The answer so far; one that is not finished counts as interrupted."""
        text = "".join(chunk.text for chunk in self._chunks)
        last = self._chunks[-1] if self._chunks else Chunk()
        parsed = None
        if self._constraint is not None and last.finish_reason == "stop":
            parsed = constraints.parse(self._constraint, text)
        return Response(
            text=text,
            reasoning="".join(chunk.reasoning for chunk in self._chunks),
            parsed=parsed,
            tool_calls=self._tool_calls(),
            finish_reason=last.finish_reason or "interrupted",
            usage=last.usage or Usage(),
            timings=last.timings or Timings(),
            logprobs=tuple(entry for chunk in self._chunks for entry in chunk.logprobs),
            tokens=tuple(token for chunk in self._chunks for token in chunk.tokens),
            seed=last.seed,
            model=self._model,
            error=last.error,
            choices=tuple(choices),
        )

    def _tool_calls(self) -> tuple[ToolCall, ...]:
        calls: dict[int, GatheredCall] = {}
        for delta in [delta for chunk in self._chunks for delta in chunk.tool_calls]:
            calls.setdefault(delta.index, GatheredCall()).add(delta)
        return tuple(calls[index].call for index in sorted(calls))


def _fenced(calls: Sequence[ToolCall]) -> str:
    return f"```json\n{_as_json(calls)}\n```" if calls else ""


def _as_json(calls: Sequence[ToolCall]) -> str:
    """The calls, one after the other; arguments that were cut short stay a text."""
    return "\n".join(
        json.dumps({"name": call.name, "arguments": _value(call.arguments)}, ensure_ascii=False, indent=2)
        for call in calls
    )


def _value(arguments: str) -> object:
    try:
        value: object = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value


def combined(collectors: Iterable[Collector]) -> Response:
    """One Response of the n answers to one prompt."""
    responses = [collector.response() for collector in collectors]
    if len(responses) == 1:
        return responses[0]
    from dataclasses import replace

    completion = sum(response.usage.completion_tokens for response in responses)
    reasoning = sum(response.usage.reasoning_tokens for response in responses)
    usage = replace(responses[0].usage, completion_tokens=completion, reasoning_tokens=reasoning)
    return replace(responses[0], usage=usage, choices=tuple(responses))
