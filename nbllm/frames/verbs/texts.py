"""A verb about the text of one column: an instruction that is the same for all rows, then the row's text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from nbllm.frames.templates import shown
from nbllm.frames.verbs.plan import Plan, Row, Shots
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source
from nbllm.session.response import Response

TEXT = "Text"


def about(instruction: str, blocks: Mapping[str, Any]) -> str:
    """A prompt of which rows share the beginning: what is to be done, then the row's values under their titles."""
    return "\n\n".join([instruction, *(f"{title}:\n{shown(value)}" for title, value in blocks.items())])


def text_plan(
    source: Source,
    settings: Settings,
    column: Hashable,
    instruction: str,
    columns: Mapping[Hashable, str],
    read: Callable[[Any], Sequence[Any]],
    answer: Callable[[Row], str],
    *,
    base: str,
    option: str = "into",
    is_table: bool = False,
    misfit: Callable[[Response], str | None] | None = None,
    choices: Sequence[str] | None = None,
) -> Plan:
    """A plan that asks one thing about one column.

    Args:
        answer: an example's, from the columns that it is to give.
        choices: ask how likely each of them is.
    """

    def text(row: Row) -> str:
        return about(instruction, {TEXT: row[column]})

    answers = list(columns)[:1] if choices else list(columns)
    shots = Shots.of(settings, [column], text, answers, answer)
    return Plan(
        uses=[column],
        requests=lambda row: [shots.choose(text(row), choices) if choices else shots.ask(text(row))],
        columns=columns,
        read=lambda values: read(values[0]),
        base=base,
        option=option,
        is_table=is_table,
        misfit=misfit,
    )
