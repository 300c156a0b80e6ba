r"""The text of a row's prompt, with the columns' values in it.

    {review} {unit price} {}     a column; "" is a column too, the only value of a Series
    {price:.2f} {day:%d %B}      with a format; no space after the colon
    {{review}}                   {review}
    {{                           {, and the }} that closes it is }; a lone }} stays

A name in braces that is no column is an error, for it is more often a slip than meant. Everything else stays as it
was typed: `{}` where there is no column "", JSON, `{0}`, `{x + 1}`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from nbllm.errors import ParameterError

_TOKEN = re.compile(r"\{\{|\{(?P<inside>[^{}]*)\}|[{}]")
_SPEC = re.compile(r"(?P<name>[^{}]*?):(?P<spec>[^\s{}]+|[^\s{}%]*%[^{}\x00-\x1f]+)")
_MOST_NAMES = 10

_Piece = str | Callable[[Mapping[str, object]], str]


class TemplateError(ParameterError, KeyError):
    """A template names a column that the table lacks, or a row's value does not take the format."""

    __str__ = Exception.__str__  # KeyError's would put the message into quotes


class RowTemplate:
    """A prompt with places for columns.

    Args:
        columns: those of the table; of a Series "" and whatever else its value is called.

    Attributes:
        names: the columns that are used, in the order of their first places.

    Raises:
        TemplateError: it names a column that is not there; the message has the nearest one.
        ParameterError: it is no text.
    """

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        if not isinstance(text, str):
            raise ParameterError("prompt", f"must be a text with {{column}} in it, not {type(text).__name__}")
        self.text = text
        self._columns = tuple(columns)
        self._known = frozenset(column for column in columns if isinstance(column, str))
        used: dict[str, None] = {}
        self._pieces = list(self._parsed(used))
        self.names = tuple(used)

    def __repr__(self) -> str:
        return f"RowTemplate({self.text!r:.100})"

    def render(self, row: Mapping[str, object]) -> str | None:
        """The row's prompt, None when a value that it uses is null.

        Raises:
            TemplateError: a value does not take the format that is asked for.
        """
        if any(is_null(row[name]) for name in self.names):
            return None
        return "".join(piece if isinstance(piece, str) else piece(row) for piece in self._pieces)

    def _parsed(self, used: dict[str, None]) -> Iterator[_Piece]:
        position = 0
        doubled: list[bool] = []  # of the opening braces that are not closed yet
        while token := _TOKEN.search(self.text, position):
            yield self.text[position : token.start()]
            position = token.end()
            place = self._place(token["inside"], used) if token["inside"] is not None else None
            if place is not None:
                yield place
            elif token["inside"] is not None:
                yield token[0]
            elif token[0] == "}":
                yield "}"
                if doubled and doubled.pop() and self.text.startswith("}", position):
                    position += 1
            else:
                doubled.append(token[0] == "{{")
                yield "{"
        yield self.text[position:]

    def _place(self, inside: str, used: dict[str, None]) -> _Piece | None:
        """What stands in for one place, None when the braces mean themselves."""
        if inside in self._known:
            used[inside] = None
            return lambda row: shown(row[inside])
        match = _SPEC.fullmatch(inside)
        if match is not None and match["name"] in self._known:
            name, spec = match["name"], match["spec"]
            used[name] = None
            return lambda row: _formatted(name, row[name], spec)
        if inside.isidentifier():
            raise TemplateError("prompt", self._problem(inside))
        return None

    def _problem(self, name: str) -> str:
        known = [column for column in self._columns if isinstance(column, str) and column]
        by_lower = {column.lower(): column for column in known}
        close = difflib.get_close_matches(name.lower(), by_lower, n=1)
        if close:
            hint = f"did you mean {{{by_lower[close[0]]}}}?"
        elif known:
            more = ", ..." if len(known) > _MOST_NAMES else ""
            hint = f"the columns are {', '.join(known[:_MOST_NAMES])}{more}."
        else:
            hint = "write {} for the value." if "" in self._known else "there are no columns."
        return f"there is no column {name!r:.100}; {hint} For the text itself write {{{{{name:.100}}}}}"


def is_null(value: object) -> bool:
    """Whether a value is missing: None, NaN, NaT or pandas' NA. A list or an array is a value, whatever is in it."""
    if value is None:
        return True
    if isinstance(value, str) or hasattr(value, "__len__"):
        return False
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"  # it is neither equal nor unequal to itself


def shown(value: object) -> str:
    """A value as a prompt has it: lists and dicts as JSON, whatever else as `str` writes it."""
    if isinstance(value, list | tuple | dict):
        try:
            return json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError, RecursionError):
            return str(value)
    return str(value)


def _formatted(name: str, value: object, spec: str) -> str:
    try:
        return format(value, spec)
    except (TypeError, ValueError) as error:
        problem = f"{{{name}:{spec}}} does not suit {value!r:.60}: {error}; leave the format out"
        raise TemplateError("prompt", problem) from error
