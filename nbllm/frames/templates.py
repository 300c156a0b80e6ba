r"""The text of a row's prompt, with the columns' values in it.

    {review} {unit price} {}     a column; "" is a column too, the only value of a Series
    {price:.2f} {day:%d %B}      with a format; no space after the colon
    {{review}}                   {review}
    {{                           {, and the }} that closes it is }; a lone }} stays

A name in braces that is no column is an error, for it is more often a slip than meant, and so is what is nearly a
column: `{ review }`, `{unit pice}`, `{review!r}`, `{day.year}`. Everything else stays as it was typed: `{}` where there
is no column "", JSON, `{0}`, `{x + 1}`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nbllm.errors import ParameterError

_TOKEN = re.compile(r"\{\{|\{(?P<inside>[^{}]*)\}|[{}]")
_SPEC = re.compile(r"(?P<name>[^{}]*?):(?P<spec>[^\s{}]+|[^\s{}%]*%[^{}\x00-\x1f]+)")
_BEHIND_A_NAME = re.compile(r"\s*(![rsa]\b|\.[A-Za-z_]|\[[^\]]*\]).*", re.DOTALL)
"""What Python's own templates take behind a name."""
_PLAINLY_A_FORMAT = re.compile(r"\S*(\.\d+[eEfFgG%]?|,|%[A-Za-z]).*")
_CODE = re.compile(r"[\"'\\;=,:\n]|\w\([\w ]*\)|\s[-+*/<>|&]\s")
_LONGEST_SLIP = 60
_CUTOFF, _CUTOFF_OF_WORDS = 0.6, 0.75
"""How alike a name and a column are when one is meant to be the other; words may be prose, and so have to be nearer."""
_MOST_NAMES = 10
_TIMES = ("M", "m")
"""numpy's kinds of moments and of spans."""

_Piece = str | Callable[[Mapping[str, object]], str]


class TemplateError(ParameterError, KeyError):
    """A template names a column that the table lacks, or a row's value does not take the format."""

    __str__ = Exception.__str__  # KeyError's would put the message into quotes


class RowTemplate:
    """A prompt with places for columns.

    Args:
        columns: those of the table; of a Series "" and whatever else its value is called.
        param: what the text is called in errors.

    Attributes:
        names: the columns that are used, in the order of their first places.

    Raises:
        TemplateError: it names a column that is not there; the message has the nearest one.
        ParameterError: it is no text.
    """

    def __init__(self, text: str, columns: Sequence[str], param: str = "prompt") -> None:
        if not isinstance(text, str):
            raise ParameterError(param, f"must be a text with {{column}} in it, not {type(text).__name__}")
        self.text, self._param = text, param
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
            return lambda row: _formatted(self._param, name, row[name], spec)
        if inside.isidentifier() or self._meant(inside) is not None:
            raise TemplateError(self._param, self._problem(inside))
        return None

    def _meant(self, inside: str) -> str | None:
        """The column that stands, or nearly, in braces that hold no mere name; None when they mean themselves."""
        text = inside.strip()
        if not text or len(text) > _LONGEST_SLIP:
            return None
        for column in sorted(self._known - {""}, key=len, reverse=True):
            if text == column or (text.startswith(column) and _BEHIND_A_NAME.fullmatch(text, len(column))):
                return column
        match = _SPEC.fullmatch(text)
        if match is not None and _PLAINLY_A_FORMAT.fullmatch(match["spec"]):
            return self._nearest(match["name"].strip())
        is_plain = _CODE.search(text) is None and any(map(str.isalpha, text))
        return self._nearest(text) if is_plain else None

    def _nearest(self, text: str) -> str | None:
        by_lower = {column.lower(): column for column in self._known if column}
        cutoff = _CUTOFF_OF_WORDS if " " in text else _CUTOFF
        close = difflib.get_close_matches(text.lower(), by_lower, n=1, cutoff=cutoff)
        return by_lower[close[0]] if close else None

    def _problem(self, inside: str) -> str:
        known = [column for column in self._columns if isinstance(column, str) and column]
        meant = self._nearest(inside) if inside.isidentifier() else self._meant(inside)
        if meant is not None:
            hint = self._advice(meant, inside)
        elif known:
            more = ", ..." if len(known) > _MOST_NAMES else ""
            hint = f"the columns are {', '.join(known[:_MOST_NAMES])}{more}."
        else:
            hint = "write {} for the value." if "" in self._known else "there are no columns."
        return f"there is no column {inside!r:.100}; {hint} For the text itself write {{{{{inside:.100}}}}}"

    def _advice(self, column: str, inside: str) -> str:
        if "{" in column or "}" in column:
            return f"if you mean {column!r:.100}, a name with a brace in it cannot stand here: rename the column."
        if inside.strip().startswith(column) and inside.strip() != column:
            return f"did you mean {{{column}}}? Only a format may follow a name, as in {{{column}:.2f}}."
        return f"did you mean {{{column}}}?"


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
    """A value as a prompt has it: lists and dicts as JSON, arrays as the lists that they hold, all else as `str` does.

    So a column of lists reads the same after a round trip through Parquet, which makes arrays of them.
    """
    if isinstance(value, list | tuple | dict) or _holds_many(value):
        try:
            return json.dumps(value, ensure_ascii=False, default=_plain)
        except (TypeError, ValueError, RecursionError):
            return str(value)
    return str(value)


def _holds_many(value: object) -> bool:
    """Whether it is an array of numpy's, or a Series, an Index, a frame or an array of pandas'."""
    return (hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0) or _is_frame(value)


def _is_frame(value: object) -> bool:
    return hasattr(value, "to_dict") and hasattr(value, "columns")


def _plain(value: Any) -> object:
    """What JSON has for a part of a value that it has no form for."""
    if is_null(value):
        return None
    if _is_frame(value):
        return value.to_dict("records")
    if type(value).__module__ == "numpy" and value.dtype.kind in _TIMES:  # of nanoseconds `tolist` makes integers
        return value.astype(f"{value.dtype.kind}8[us]").tolist() if value.ndim else str(value)
    return value.tolist() if hasattr(value, "dtype") and hasattr(value, "tolist") else str(value)


def _formatted(param: str, name: str, value: object, spec: str) -> str:
    try:
        return format(value, spec)
    except (TypeError, ValueError) as error:
        problem = f"{{{name}:{spec}}} does not suit {value!r:.60}: {error}; leave the format out"
        raise TemplateError(param, problem) from error
