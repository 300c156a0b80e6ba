"""One request's way through a chat template: forms are tried until one is accepted, then the contents are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nbllm.chat import plain, toolprompt
from nbllm.chat.budget import Budget, ExhaustedError, ProgramError, weight
from nbllm.chat.callformats import HERMES, CallFormat, format_of
from nbllm.chat.folding import Candidate, Turn, candidates
from nbllm.chat.marks import Marks
from nbllm.chat.program import Program
from nbllm.chat.rendered import AssistantSpan, Rendered
from nbllm.chat.spans import Bounds, SpanFinder
from nbllm.chat.toolprompt import CallStyle
from nbllm.core import Message

_MEBIBYTE = 2**20
# Twice what the longest known template takes for 500 messages. All runs of one rendering draw on the same purse.
_STEPS, _STEPS_PER_MESSAGE, _RUNS = 2_000_000, 8_000, 3
_SIZE, _SIZE_PER_BYTE = 64 * _MEBIBYTE, 32
_OUTPUT, _OUTPUT_PER_BYTE = 8 * _MEBIBYTE, 16


class Rendering:
    """Renders `messages` once.

    Args:
        source: what the program was made of.
        names: the template's other variables.
        size: bytes of all that is given.
        tools: in OpenAI's form, as `toolprompt.described` gives them.
    """

    def __init__(
        self,
        program: Program | None,
        source: str,
        messages: Sequence[Message],
        marks: Marks,
        names: Mapping[str, Any],
        size: int,
        tools: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._program = program
        self._source = source
        self._tools: list[dict[str, Any]] = toolprompt.swapped(list(tools), marks.swapped)
        self._style = CallStyle()
        self._messages = messages
        self._marks = marks
        self._names = {**names, "tools": self._tools} if tools else dict(names)
        self._steps = _STEPS + _STEPS_PER_MESSAGE * len(messages)
        self._steps_left = self._steps * _RUNS
        self._size = _SIZE + _SIZE_PER_BYTE * size
        self._output = _OUTPUT + _OUTPUT_PER_BYTE * size

    def render(self, continue_final: bool) -> Rendered:
        """Raises ProgramError if no form of the messages is accepted."""
        if self._program is None:
            return self._plain(continue_final)
        candidate, text, form = self._chosen()
        finder = SpanFinder(self._run, self._marks, candidate.turns, text)
        if continue_final:
            start = finder.start_of_last()
            if start is None:
                raise ProgramError("it changes the last message, so that message cannot be continued")
            text = text[:start] + candidate.turns[-1].content
        found = finder.find(self._with_tokens(candidate.turns))
        found = {position: bounds for position, bounds in found.items() if bounds.end <= len(text)}
        notes = (*candidate.notes, *_left_out_notes(candidate.turns, text))
        return replace(self._finished(candidate.turns, text, found, notes), calls=form if self._tools else None)

    def _chosen(self) -> tuple[Candidate, str, CallFormat]:
        """An accepted form of the messages, its text, and how the template wants calls to be written."""
        turns = self._turns()
        if not self._tools and not any(turn.calls for turn in turns):
            return *self._accepted(turns), HERMES
        own = self._with_own_tools(turns)
        if own is not None:
            return *own, format_of(self._source)
        candidate, text = self._written_out(turns)
        return candidate, text, HERMES

    def _with_own_tools(self, turns: Sequence[Turn]) -> tuple[Candidate, str] | None:
        """The template's own way with tools and calls, None if it leaves any of them out."""
        if self._tools and "tools" not in self._source:
            return None
        has_calls = any(turn.calls for turn in turns)
        for self._style in toolprompt.STYLES if has_calls else toolprompt.STYLES[:1]:
            try:
                candidate, text = self._accepted(turns)
            except ExhaustedError:
                raise
            except ProgramError:
                continue
            if not toolprompt.shows_tools(text, self._tools, turns):
                return None
            has_results = all(turns[position].role != "tool" for position in _left_out(turns, text))
            if has_results and toolprompt.shows_calls(text, turns, self._marks.swapped):
                return candidate, text
        return None

    def _written_out(self, turns: Sequence[Turn]) -> tuple[Candidate, str]:
        self._names["tools"] = None
        candidate, text = self._accepted(toolprompt.written_out(turns, self._tools, self._marks.swapped))
        return replace(candidate, notes=(toolprompt.NOTE, *candidate.notes)), text

    def _plain(self, continue_final: bool) -> Rendered:
        turns = self._turns()
        if self._tools or any(turn.calls for turn in turns):
            turns = toolprompt.written_out(turns, self._tools, self._marks.swapped)
        ending = "" if continue_final else "\nAssistant:" if self._names["add_generation_prompt"] else "\n"
        written = plain.plain_text(turns, ending)
        found = {position: written.bounds[position] for position in self._with_tokens(turns)}
        rendered = self._finished(turns, written.text, found, (plain.NOTE,), plain.STOP)
        return replace(rendered, calls=HERMES) if self._tools else rendered

    def _turns(self) -> list[Turn]:
        return [
            Turn(
                index,
                message.role,
                self._swapped(message.content),
                self._swapped(message.reasoning),
                self._swapped(message.name),
                calls=message.tool_calls,
                call_id=message.tool_call_id,
            )
            for index, message in enumerate(self._messages)
        ]

    def _swapped(self, text: str | None) -> Any:
        return text if text is None else self._marks.swapped(text)

    def _with_tokens(self, turns: Sequence[Turn]) -> list[int]:
        return [
            position
            for position, turn in enumerate(turns)
            if turn.index >= 0 and self._messages[turn.index].tokens is not None
        ]

    def _accepted(self, turns: Sequence[Turn]) -> tuple[Candidate, str]:
        """The first form of the messages that the template takes whole, else the first that it takes at all."""
        taken: tuple[Candidate, str] | None = None
        refused: ProgramError | None = None
        for candidate in candidates(turns):
            try:
                text = self._run(candidate.turns)
            except ExhaustedError:
                raise
            except ProgramError as fault:
                refused = fault
                continue
            if not _left_out(candidate.turns, text):
                return candidate, text
            taken = taken or (candidate, text)
        if taken is not None:
            return taken
        assert refused is not None, "there is always a first form"
        raise refused

    def _run(self, turns: Iterable[Turn]) -> str:
        assert self._program is not None
        budget = Budget(steps := min(self._steps, self._steps_left), self._size)
        try:
            text = self._program.run(budget, {**self._names, "messages": [self._as_dict(turn) for turn in turns]})
        finally:
            self._steps_left -= steps - budget.steps
        if weight(text) > self._output:
            raise ExhaustedError("it builds too much text")
        return text

    def _as_dict(self, turn: Turn) -> dict[str, Any]:
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.reasoning is not None:
            message["reasoning_content"] = turn.reasoning
        if turn.name is not None:
            message["name"] = turn.name
        if turn.calls:
            message["tool_calls"] = toolprompt.calls_as_dicts(turn.calls, self._style, self._marks.swapped)
        if turn.call_id is not None:
            message["tool_call_id"] = toolprompt.id_as(turn.call_id, self._style, self._marks.swapped)
        return message

    def _finished(
        self,
        turns: Sequence[Turn],
        text: str,
        found: Mapping[int, Bounds],
        notes: tuple[str, ...],
        stop: tuple[str, ...] = (),
    ) -> Rendered:
        positions = sorted(found)
        offsets = [offset for position in positions for offset in (found[position].start, found[position].end)]
        segments, moved = self._marks.restored(text, offsets)
        joined = "".join(segment.text for segment in segments)
        spans = [
            AssistantSpan(turns[position].index, start, end)
            for position, start, end in zip(positions, moved[::2], moved[1::2], strict=True)
        ]
        kept = tuple(span for span in spans if joined[span.start : span.end] == self._messages[span.message].content)
        return Rendered(segments, joined, notes, assistant_spans=kept, stop=stop)


def _left_out(turns: Sequence[Turn], text: str) -> list[int]:
    """Positions of the turns whose content is not in the text; what an assistant said may be cut by design."""
    missing = []
    place = 0
    for position, turn in enumerate(turns):
        content = turn.content.strip()
        if turn.role == "assistant" or not content:
            continue
        found = text.find(content, place)
        if found >= 0:
            place = found + len(content)
        elif content not in text:
            missing.append(position)
    return missing


def _left_out_notes(turns: Sequence[Turn], text: str) -> list[str]:
    return [
        f"turn {position + 1} ({turns[position].role}) is not in the prompt as it was written: "
        "the template leaves it out or changes it"
        for position in _left_out(turns, text)
    ]
