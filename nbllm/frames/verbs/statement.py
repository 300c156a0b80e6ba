"""A text that names columns, asked of rows so that they share it: the names stay in it, and the values follow.

"{review} is about delivery"   →   "review is about delivery", then "review:" and the row's review
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.errors import ParameterError
from nbllm.frames.verbs.plan import Row
from nbllm.frames.verbs.source import Source
from nbllm.frames.verbs.texts import TEXT

_THE_TEXT = "the text"


@dataclass(frozen=True, slots=True)
class Statement:
    """A text about rows.

    Attributes:
        wording: with the names of the columns in it.
        uses: the columns that it names.
    """

    wording: str
    uses: Sequence[Hashable]
    is_of_series: bool

    @classmethod
    def of(cls, source: Source, param: str, text: Any, *, needs_column: bool = True) -> Statement:
        """Read a text; about a Series it need not say `{}`.

        Args:
            needs_column: whether a text about a frame must name a column.
        """
        if isinstance(text, str) and not text.strip():
            raise ParameterError(param, f"is empty; write what is meant, with {source.example} in it")
        template = source.template(param, text, needs_column=needs_column and not source.is_series)
        wording = template.render({name: _Name(_THE_TEXT if source.is_series else name) for name in template.names})
        uses = [source.value] if source.is_series else source.used(template.names)
        return cls(wording or "", uses, source.is_series)

    def blocks(self, row: Row) -> dict[str, Any]:
        """The row's values under their titles, as `texts.about` takes them."""
        return {TEXT if self.is_of_series else str(name): row[name] for name in self.uses}


class _Name:
    """A column's name in the place of its value, whatever format the value would have had."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return self._name

    def __format__(self, spec: str) -> str:
        return self._name
