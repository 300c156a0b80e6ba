"""A mark on a scale of whole numbers, which the model cannot leave."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.core.numbers import as_number
from nbllm.errors import ParameterError
from nbllm.frames.verbs.plan import Plan, Row, Shots
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source
from nbllm.frames.verbs.texts import about

_MOST_MARKS = 101


@dataclass(frozen=True, slots=True)
class Scale:
    """The marks from `low` to `high`.

    Raises:
        ParameterError: they are no whole numbers in that order, or further apart than 100.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.high)):
            if as_number(int, value) is None:
                raise ParameterError(name, f"must be a whole number, not {value!r:.100}")
        if not self.low < self.high < self.low + _MOST_MARKS:
            problem = f"must be above low={self.low}, by at most {_MOST_MARKS - 1}, not {self.high}"
            raise ParameterError("high", problem)

    @property
    def marks(self) -> list[str]:
        return [str(mark) for mark in range(int(self.low), int(self.high) + 1)]

    @property
    def wording(self) -> str:
        return f"from {self.low} (worst) to {self.high} (best)"

    def written(self, value: Any) -> str:
        """An example's mark."""
        number = as_number(int, value)
        if number is None or str(number) not in self.marks:
            raise ParameterError("examples", f"{value!r:.100} is no mark from {self.low} to {self.high}")
        return str(number)


def mark_plan(
    source: Source,
    scale: Scale,
    options: Mapping[str, Any],
    instruction: str,
    uses: Sequence[Hashable],
    blocks: Callable[[Row], Mapping[str, Any]],
    into: str,
) -> tuple[Plan, Settings]:
    """A plan that asks for one mark a row.

    Args:
        blocks: the row's values under their titles.
    """
    settings = Settings.of(options, choice=scale.marks)

    def text(row: Row) -> str:
        return about(instruction, blocks(row))

    shots = Shots.of(settings, uses, text, [into], lambda row: scale.written(row[into]))
    plan = Plan(
        uses=uses,
        requests=lambda row: [shots.ask(text(row))],
        columns={into: "Int64"},
        read=lambda values: [int(values[0].text)],
        base=into,
    )
    return plan, settings
