"""One request's way through a chat template: forms are tried until one is accepted, then the contents are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nbllm.chat import plain
from nbllm.chat.budget import Budget, ExhaustedError, ProgramError, weight
from nbllm.chat.folding import Candidate, Turn, candidates
from nbllm.chat.marks import Marks
from nbllm.chat.program import Program
from nbllm.chat.rendered import AssistantSpan, Rendered
from nbllm.chat.spans import Bounds, SpanFinder
from nbllm.core import Message

_MEBIBYTE = 2**20
# Twice what the longest known template takes for 500 messages. All runs of one rendering draw on the same purse.
_STEPS, _STEPS_PER_MESSAGE, _RUNS = 2_000_000, 8_000, 3
_SIZE, _SIZE_PER_BYTE = 64 * _MEBIBYTE, 32
_OUTPUT, _OUTPUT_PER_BYTE = 8 * _MEBIBYTE, 16


class Rendering:
    """Renders `messages` once. `names` are the template's other variables, `size` the bytes of all that is given."""

    def __init__(
        self, program: Program | None, messages: Sequence[Message], marks: Marks, names: Mapping[str, Any], size: int
    ) -> None:
        self._program = program
        self._messages = messages
        self._marks = marks
        self._names = names
        self._steps = _STEPS + _STEPS_PER_MESSAGE * len(messages)
        self._steps_left = self._steps * _RUNS
        self._size = _SIZE + _SIZE_PER_BYTE * size
        self._output = _OUTPUT + _OUTPUT_PER_BYTE * size

    def render(self, continue_final: bool) -> Rendered:
        """Raises ProgramError if no form of the messages is accepted."""
        if self._program is None:
            return self._plain(continue_final)
        candidate, text = self._accepted()
        finder = SpanFinder(self._run, self._marks, candidate.turns, text)
        if continue_final:
            start = finder.start_of_last()
            if start is None:
                raise ProgramError("it changes the last message, so that message cannot be continued")
            text = text[:start] + candidate.turns[-1].content
        found = finder.find(self._with_tokens(candidate.turns))
        found = {position: bounds for position, bounds in found.items() if bounds.end <= len(text)}
        notes = (*candidate.notes, *_left_out_notes(candidate.turns, text))
        return self._finished(candidate.turns, text, found, notes)

    def _plain(self, continue_final: bool) -> Rendered:
        turns = self._turns()
        ending = "" if continue_final else "\nAssistant:" if self._names["add_generation_prompt"] else "\n"
        written = plain.plain_text(turns, ending)
        found = {position: written.bounds[position] for position in self._with_tokens(turns)}
        return self._finished(turns, written.text, found, (plain.NOTE,), plain.STOP)

    def _turns(self) -> list[Turn]:
        return [
            Turn(index, message.role, *map(self._swapped, (message.content, message.reasoning, message.name)))
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

    def _accepted(self) -> tuple[Candidate, str]:
        """The first form of the messages that the template takes whole, else the first that it takes at all."""
        taken: tuple[Candidate, str] | None = None
        refused: ProgramError | None = None
        for candidate in candidates(self._turns()):
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
            text = self._program.run(budget, {**self._names, "messages": [_as_dict(turn) for turn in turns]})
        finally:
            self._steps_left -= steps - budget.steps
        if weight(text) > self._output:
            raise ExhaustedError("it builds too much text")
        return text

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


def _as_dict(turn: Turn) -> dict[str, str]:
    message = {"role": turn.role, "content": turn.content}
    if turn.reasoning is not None:
        message["reasoning_content"] = turn.reasoning
    if turn.name is not None:
        message["name"] = turn.name
    return message


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
