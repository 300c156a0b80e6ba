"""The frame or Series that a verb was called on."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

from nbllm.errors import ParameterError
from nbllm.frames.templates import RowTemplate, TemplateError

if TYPE_CHECKING:
    import pandas as pd

UNNAMED = "value"
"""What the values of a Series without a name are called."""


@dataclass(frozen=True, slots=True)
class Source:
    """Rows to ask about. A Series is a frame of one column, whose results stand alone.

    Attributes:
        frame: shares its data with the caller's, which copy-on-write keeps apart.
        name: of the Series, which a frame's column has only if it is a text.
    """

    frame: pd.DataFrame
    is_series: bool
    name: Any = None

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> Source:
        return cls(frame.copy(deep=False), False)

    @classmethod
    def of_series(cls, series: pd.Series) -> Source:
        name = series.name if isinstance(series.name, str) else UNNAMED
        return cls(series.to_frame(name), True, series.name)

    @property
    def value(self) -> Hashable:
        """The only column of a Series."""
        return self.frame.columns[0]  # type: ignore[no-any-return]

    def column(self, param: str, name: Any) -> Hashable:
        """The name of a column, checked.

        Raises:
            ParameterError: there is none, or more than one; the message says which there are.
        """
        if not isinstance(name, Hashable):
            problem = f"must be a column's name, not a {type(name).__name__}"
            own = getattr(name, "name", None)
            raise ParameterError(param, f"{problem}; write {own!r:.100}" if isinstance(own, str) else problem)
        if name not in self.frame.columns:
            raise ParameterError(param, f"there is no column {name!r:.100}; {_nearest(name, self.frame.columns)}")
        if sum(self.frame.columns == name) > 1:
            raise ParameterError(param, f"there are two columns {name!r:.100}; rename one of them")
        return name

    def template(self, param: str, text: Any, *, needs_column: bool = True) -> RowTemplate:
        """A text with {column} in it, of which it must have at least one unless `needs_column` is false."""
        if not isinstance(text, str):
            raise ParameterError(param, f"must be a text with {self.example} in it, not {type(text).__name__}")
        names = self._names
        try:
            template = RowTemplate(text, ["", *names] if self.is_series else list(names), param)
        except TemplateError:
            self._check_levels(param)
            raise
        if needs_column and not template.names:
            self._check_levels(param)
            raise ParameterError(param, f"names no column, so that all rows would ask the same; write {self.example}")
        for name in template.names:
            if name or not self.is_series:
                self.column(param, names[name])
        return template

    def written_in(self, text: str) -> list[str]:
        """The columns that stand in braces in a text."""
        return [name for name in self._names if f"{{{name}}}" in text]

    def used(self, names: Sequence[str]) -> list[Hashable]:
        """The columns behind the names in a template."""
        known = self._names
        return list(dict.fromkeys(self.value if self.is_series else known[name] for name in names))

    def named(self, row: Mapping[Hashable, Any]) -> dict[str, Any]:
        """A row as templates take it: "" is the value of a Series."""
        named = {name: row[column] for name, column in _written(row).items()}
        return {**named, "": row[self.value]} if self.is_series else named

    @property
    def example(self) -> str:
        """How a column is written in a text."""
        if self.is_series:
            return "{}"
        first = next((name for name in self._names if name.isidentifier() or name.isdigit()), "column")
        return f"{{{first}}}"

    @property
    def _names(self) -> dict[str, Hashable]:
        return _written(self.frame.columns)

    def _check_levels(self, param: str) -> None:
        if self.frame.columns.nlevels > 1:
            raise ParameterError(
                param, "cannot name columns of several levels; give them one, such as with df.columns = "
                "df.columns.map('_'.join)"
            )  # fmt: skip

    def check_new(self, names: Iterable[Any], option: str) -> None:
        """Refuse to overwrite columns; beside a Series there are no others.

        Args:
            option: with which the names are chosen.
        """
        for name in names:
            if not self.is_series and name in self.frame.columns:
                another = f"give another {option}=, or overwrite=True to replace it"
                raise ParameterError(option, f"there is a column {name!r:.100} already; {another}")

    def without(self, names: Iterable[str]) -> Source:
        """The same rows, of which these columns are gone, if they were there."""
        gone = [] if self.is_series else [name for name in names if name in self.frame.columns]
        return replace(self, frame=self.frame.drop(columns=gone)) if gone else self

    def with_columns(self, new: pd.DataFrame) -> pd.DataFrame:
        """The frame and new columns, which have its rows in its order; of a Series the new ones alone."""
        return new if self.is_series else self.beside(new)

    def beside(self, new: pd.DataFrame) -> pd.DataFrame:
        """The rows and new columns, also of a Series. A new column takes the place of a frame's of the same name."""
        import pandas as pd

        if isinstance(self.frame.columns, pd.MultiIndex):
            depth = self.frame.columns.nlevels - 1
            new = new.set_axis(pd.MultiIndex.from_tuples([(name, *[""] * depth) for name in new.columns]), axis=1)
        replaced = [] if self.is_series else [name for name in new.columns if name in self.frame.columns]
        frame = self.frame.copy(deep=False)
        for name in replaced:
            frame[name] = new[name].array  # not by the index, which may have doubles
        joined = pd.concat([frame, new.drop(columns=replaced)], axis=1)
        joined.attrs = self.frame.attrs
        return joined


def new_name(option: str, name: Any) -> str:
    """The name of a column to be, checked."""
    if not isinstance(name, str) or not name:
        raise ParameterError(option, f"must be a new column's name, not {name!r:.100}")
    return name


def _written(columns: Iterable[Hashable]) -> dict[str, Hashable]:
    """Columns by what they are called in a template: whole numbers too, unless a text is called so."""
    listed = list(columns)
    numbers = [name for name in listed if isinstance(name, Integral) and not isinstance(name, bool)]
    texts = {name: name for name in listed if isinstance(name, str)}
    return {**{str(name): name for name in numbers}, **texts}


def _nearest(name: Any, columns: Iterable[Hashable]) -> str:
    known = [column for column in columns if isinstance(column, str)]
    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"the columns are {', '.join(map(repr, known))}"[:300]
