"""The cells of a comparison: each prompt with each case, each combination of parameters and each repeat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nbllm.core import Message
from nbllm.errors import InvalidRequestError, NbllmError
from nbllm.frames.asks import Ask
from nbllm.frames.compare.params import ParamSet
from nbllm.frames.compare.prompts import PromptTemplate
from nbllm.frames.compare.table import Table


class Cell(NamedTuple):
    """One answer that every model gives: numbers of its prompt, case and parameters, and which repeat it is."""

    prompt: int
    case: int
    params: int
    repeat: int


class Filled(NamedTuple):
    """What a cell asks.

    Attributes:
        turns: the messages without the system message at their beginning; None when a value that they use is missing.
        seed: of the answer.
        error: why it cannot be asked.
    """

    turns: tuple[Message, ...] | None
    system: str | None
    seed: int
    ask: Ask | None
    error: NbllmError | None


@dataclass(frozen=True, slots=True)
class Expected:
    """Where the expected answers are: in a column of the table, or one for each prompt when there is no table."""

    column: str
    by_prompt: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells of a comparison, which are the same for each model.

    Args:
        expected: where the expected answers are, None when there are none.
        limit: only so many cases, or without a table so many prompts; each with all that is asked of it.
    """

    prompts: Sequence[PromptTemplate]
    table: Table
    params: Sequence[ParamSet]
    repeat: int
    seed: int
    limit: int | None = None
    expected: Expected | None = None

    def gold(self) -> list[Any]:
        """The expected answer of each cell, None where there is none."""
        if self.expected is None:
            return [None] * len(self)
        by_prompt, column = self.expected.by_prompt, self.expected.column
        if by_prompt is not None:
            return [by_prompt[cell.prompt] for cell in self]
        return [self.table.rows[cell.case][column] for cell in self]

    def __len__(self) -> int:
        num_cases, num_prompts = self._limited()
        return num_cases * num_prompts * len(self.params) * self.repeat

    def __iter__(self) -> Iterator[Cell]:
        num_cases, num_prompts = self._limited()
        return (
            Cell(prompt, case, params, repeat)
            for case in range(num_cases)
            for prompt in range(num_prompts)
            for params in range(len(self.params))
            for repeat in range(self.repeat)
        )

    def _limited(self) -> tuple[int, int]:
        """How many cases and how many prompts."""
        num_cases, num_prompts = len(self.table.rows), len(self.prompts)
        if self.limit is None:
            return num_cases, num_prompts
        if self.table.columns is None:
            return num_cases, min(num_prompts, self.limit)
        return min(num_cases, self.limit), num_prompts

    def filled(self) -> Iterator[Filled]:
        """What each cell asks, one after the other; a prompt is filled once for all that is asked of it."""
        place, turns = None, None
        problem: NbllmError | None = None
        for cell in self:
            if place != cell[:2]:
                place, problem = cell[:2], None
                try:
                    turns = self.prompts[cell.prompt].filled(self.table.rows[cell.case])
                except InvalidRequestError as error:
                    turns, problem = None, error
            yield self._filled(cell, turns, problem)

    def asks(self) -> Iterator[Ask | NbllmError | None]:
        """What `run` takes."""
        return (filled.ask or filled.error for filled in self.filled())

    def _filled(self, cell: Cell, turns: tuple[Message, ...] | None, problem: NbllmError | None) -> Filled:
        params = self.params[cell.params]
        system = params.options.system
        if turns is None:
            return Filled(None, system, 0, None, problem)
        ask: Ask | None = None
        seed = params.seed(self.seed, turns, cell.repeat)
        try:
            request = params.options.chat(turns, priority="batch")
            ask = Ask(replace(request, sampling=replace(request.sampling, seed=seed)))
        except InvalidRequestError as error:
            problem = error
        if turns[0].role == "system":
            system, turns = turns[0].content, turns[1:]
        return Filled(turns, system, seed, ask, problem)


def as_dicts(turns: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as `input_of` takes them."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]
