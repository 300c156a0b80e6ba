"""What a verb asks of a row, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nbllm.core import ChoiceRequest, EmbedRequest, GenerateRequest, Message
from nbllm.errors import ParameterError
from nbllm.frames.asks import row_seed
from nbllm.frames.templates import is_null
from nbllm.frames.verbs.settings import Settings
from nbllm.session.choosing import choice_request
from nbllm.session.response import Response

Request = GenerateRequest | ChoiceRequest | EmbedRequest
Row = Mapping[Hashable, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """A verb's work on one table.

    Attributes:
        uses: the columns whose values `requests` is given; a row that lacks one of them is not asked.
        requests: what a row asks, `num_requests` of them.
        columns: the new columns and their dtypes.
        read: the row's values for these columns, from the values of its outcomes in order.
        base: what the names of the columns that tell of the answers begin with.
        option: with which the names of the new columns are chosen.
        misfit: what of an answer the columns have no place for, None if nothing.
        is_table: the answer about a Series is a frame, also when it has one column.
    """

    uses: Sequence[Hashable]
    requests: Callable[[Row], Sequence[Request]]
    columns: Mapping[Hashable, str]
    read: Callable[[Sequence[Any]], Sequence[Any]]
    base: str
    num_requests: int = 1
    option: str = "into"
    is_table: bool = False
    misfit: Callable[[Response], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Shots:
    """The user's examples, as the turns that go before each row's own.

    Attributes:
        settings: of the call, which every request is made with.
    """

    settings: Settings
    turns: tuple[Message, ...] = ()

    @classmethod
    def of(
        cls,
        settings: Settings,
        uses: Sequence[Hashable],
        text: Callable[[Row], str],
        answers: Sequence[Hashable],
        answer: Callable[[Row], str],
    ) -> Shots:
        """Read `examples=`: a DataFrame with the columns that are used and those of the answers.

        Args:
            text: the row's prompt.
            answer: what the model should have answered to it, from the columns `answers`.

        Raises:
            ParameterError: a column or a value is not there.
        """
        examples = settings.examples
        if examples is None:
            return cls(settings)
        wanted = list(dict.fromkeys([*uses, *answers]))
        rows = _rows(examples, wanted)
        turns: list[Message] = []
        for row in rows:
            turns += Message("user", text(row)), Message("assistant", answer(row))
        return cls(settings, tuple(turns))

    def ask(self, text: str) -> GenerateRequest:
        """The row's request, with a seed of its own.

        Raises:
            InvalidRequestError: there is nothing in the text.
        """
        request = self.settings.options.chat([*self.turns, Message("user", text)], priority="batch")
        seed = row_seed(self.settings.seed, request.messages or ())
        return replace(request, sampling=replace(request.sampling, seed=seed))

    def choose(self, text: str, choices: Sequence[str]) -> ChoiceRequest:
        """The row's request for how likely each choice is."""
        return choice_request([*self.turns, Message("user", text)], choices, self.settings.options, "batch")


def _rows(examples: Any, wanted: Sequence[Hashable]) -> list[dict[Hashable, Any]]:
    columns = getattr(examples, "columns", None)
    if columns is None:
        raise ParameterError("examples", f"must be a DataFrame of rows with answers, not {type(examples).__name__}")
    for name in wanted:
        if name not in columns:
            needed = ", ".join(map(repr, wanted))
            raise ParameterError("examples", f"has no column {name!r:.100}; it needs {needed}")
    rows = [dict(zip(wanted, values, strict=True)) for values in zip(*(examples[name] for name in wanted), strict=True)]
    for row in rows:
        for name, value in row.items():
            if is_null(value):
                raise ParameterError(
                    "examples", f"has no value in column {name!r:.100} of a row; fill it or drop the row"
                )
    return rows
