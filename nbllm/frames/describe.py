"""A table in words and figures for a model: Markdown with the shape, what each column holds, and rows.

DataFrame, 1,000 rows, 2 columns

| column | dtype | missing | values |
| --- | --- | --- | --- |
| age | int64 | 0% | min 18, mean 43.2, max 80 |
| city | str | 1.2% | 12 distinct; Berlin 34%, Paris 20%, Rome 9% |

First 3 of 1,000 rows:

|  | age | city |
| --- | --- | --- |
| 0 | 18 | Berlin |
…
"""

from __future__ import annotations

import random
import re
import reprlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbllm.errors import InvalidRequestError, ParameterError

if TYPE_CHECKING:
    import pandas as pd

MAX_CHARACTERS = 400_000
"""Of the rows that were asked for by their number."""

_WANTED = re.compile(r"(?P<part>head|tail|sample)=(?P<number>[0-9]{1,9})|(?P<all>full)|")
_EXACT_ROWS = 5_000_000  # beyond it even a minimum takes long: the statistics are of evenly spaced rows
_DISTINCT_ROWS = 50_000  # hashing texts takes longer than comparing numbers
_CELL_WIDTH, _NARROW_WIDTH, _VALUE_WIDTH = 80, 20, 30
_NUM_TOP, _TOP_SHARE = 3, 0.01  # a value that is rarer is not worth its tokens
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+(?=>)")
"""Where an object is, in its repr: it says nothing, and differs from run to run."""
_BREAKS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")

Count = Callable[[str], int]


def is_table(value: object) -> bool:
    """Whether it is a DataFrame or a Series; it is known by name, for pandas may not be imported at all."""
    return any(
        kind.__name__ in ("DataFrame", "Series") and kind.__module__.partition(".")[0] == "pandas"
        for kind in type(value).__mro__
    )


def describe(frame: pd.DataFrame | pd.Series, *, spec: str = "", budget: int, count: Count) -> str:
    """A DataFrame or a Series as Markdown.

    Args:
        spec: "" for as many of the first rows as fit; "head=20", "tail=20" or "sample=20" (the same ones each time)
            for so many, whatever the budget; "full" for everything, with no cell cut.
        budget: of `count`, usually tokens. It limits the columns, and without a `spec` the rows; the text says so.

    Raises:
        ParameterError: there is no such `spec`.
        InvalidRequestError: the rows asked for have more than 400,000 characters.
    """
    import numpy as np

    wanted = _WANTED.fullmatch(spec)
    if wanted is None:
        raise ParameterError("format", f"a table takes head=20, tail=20, sample=20 or full, not {spec[:40]!r}")
    title, frame = _titled(frame)
    with np.errstate(all="ignore"):  # infinity has no mean, which is no news to warn of
        columns = _columns(frame, None if wanted["all"] else budget // 2, count)
    head = "\n".join([title, *columns.lines])
    shown = frame.iloc[:, : columns.num_shown]
    if spec:
        return head + _asked_for(shown, wanted)
    return head + _fitting(shown, budget - count(head), count)


def _titled(frame: Any) -> tuple[str, pd.DataFrame]:
    rows = _number_of(len(frame), "row")
    if frame.ndim == 2:
        return f"DataFrame, {rows}, {_number_of(frame.shape[1], 'column')}", frame
    return f"Series, {rows}", frame.to_frame("value" if frame.name is None else frame.name)


def _number_of(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("s" if number != 1 else "")


# ---- columns


@dataclass(frozen=True, slots=True)
class _Columns:
    lines: list[str]
    num_shown: int


def _columns(frame: pd.DataFrame, limit: int | None, count: Count) -> _Columns:
    """A line for each column, as many as fit but at least one."""
    sampled = frame.iloc[:: _step(len(frame), _EXACT_ROWS)]
    lines = ["", *_header(["column", "dtype", "missing", "values"])]
    lines += [_line([f"index {label}".rstrip(), *_facts(level)]) for label, level in _levels(sampled.index)]
    labels = [_label(label) for label in frame.columns]
    used, num_shown = count("\n".join(lines)), 0
    for number, label in enumerate(labels):
        line = _line([label, *_facts(sampled.iloc[:, number])])
        used += count(line) + 1
        if limit is not None and used > limit and number:
            break
        lines.append(line)
        num_shown += 1
    if len(sampled) < len(frame):
        lines += ["", f"The figures are of {len(sampled):,} rows, evenly spaced."]
    if limit is not None and num_shown < len(labels):
        lines += ["", _more(labels[num_shown:], limit // 5, count)]
    return _Columns(lines if len(lines) > 3 else [], num_shown)


def _levels(index: pd.Index) -> Iterator[tuple[str, pd.Series]]:
    """The index as columns; one that only numbers the rows says nothing."""
    import pandas as pd

    if isinstance(index, pd.RangeIndex):
        return
    for number, name in enumerate(index.names):
        yield "" if name is None else _label(name), pd.Series(index.get_level_values(number))


def _more(labels: Sequence[str], limit: int, count: Count) -> str:
    fitting = bisect_right(range(1, len(labels) + 1), limit, key=lambda number: count(", ".join(labels[:number])))
    names = ", ".join(labels[:fitting]) + (", …" if fitting < len(labels) else "")
    return f"… and {_number_of(len(labels), 'more column')}: {names}"


def _facts(column: pd.Series) -> list[str]:
    """What a line says of a column: dtype, share of missing values, statistics."""
    missing = _share(float(column.isna().mean())) if len(column) else ""
    try:
        values = _statistics(column)
    except Exception:  # noqa: BLE001  # a dtype that cannot add or compare has no statistics; the rest is still told
        values = ""
    return [str(column.dtype), missing, values]


def _statistics(column: pd.Series) -> str:
    import pandas as pd
    from pandas.api import types

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _distinct(column)
    if types.is_bool_dtype(dtype):
        share = column.mean()
        return "" if pd.isna(share) else f"{_share(float(share))} True"
    is_number = types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)
    is_time = types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype)
    if not (is_number or is_time or isinstance(dtype, pd.PeriodDtype)):
        return _distinct(column)
    low, high = column.min(), column.max()
    if pd.isna(low):
        return ""
    if low == high:
        return f"always {_cell(low)}"
    if is_number:
        return f"min {_cell(low)}, mean {_cell(float(column.mean()))}, max {_cell(high)}"
    return f"{_cell(low)} to {_cell(high)}"


def _distinct(column: pd.Series) -> str:
    """How many values there are and which are the most frequent; "about" where not all rows were looked at."""
    step = _step(len(column), _DISTINCT_ROWS)
    some = column.iloc[::step].dropna().tolist()
    if not some:
        return ""
    try:
        counts = Counter(some)  # pandas' value_counts takes lists too, in quadratic time
    except TypeError:
        return f"values such as {_cell(some[0], _VALUE_WIDTH)}"
    number = len(counts)
    if step > 1:
        once = sum(times == 1 for times in counts.values())
        number = min(round(number / (1 - (1 - 1 / step) * once / len(some))), len(column))
    distinct = f"about {_rounded(number):,} distinct" if step > 1 else f"{number:,} distinct"
    top = counts.most_common(_NUM_TOP)
    if number == 1:
        return f"always {_cell(top[0][0], _VALUE_WIDTH)}"
    if top[0][1] == 1 or top[0][1] < _TOP_SHARE * len(some):
        return distinct
    return f"{distinct}; " + ", ".join(
        f"{_cell(value, _VALUE_WIDTH)} {_share(times / len(some))}" for value, times in top
    )


def _rounded(number: int) -> int:
    return int(float(f"{number:.2g}"))


def _step(num_rows: int, at_most: int) -> int:
    return max(1, -(-num_rows // at_most))


def _share(share: float) -> str:
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{share:.1%}".replace(".0%", "%")


# ---- rows


def _asked_for(frame: pd.DataFrame, wanted: re.Match[str]) -> str:
    """The rows that a format names, whatever they cost."""
    total = len(frame)
    number = total if wanted["all"] else min(int(wanted["number"]), total)
    if wanted["part"] == "sample" and number < total:
        frame = frame.iloc[sorted(random.Random(0).sample(range(total), number))]
    else:
        frame = frame.iloc[total - number :] if wanted["part"] == "tail" else frame.iloc[:number]
    lines, size = [], 0
    for line in _rows(frame, None if wanted["all"] else _CELL_WIDTH):
        lines.append(line)
        size += len(line) + 1
        if size > MAX_CHARACTERS:
            raise InvalidRequestError(
                f"{len(lines) - 2:,} of {_number_of(number, 'row')} are {MAX_CHARACTERS:,} characters already, the "
                f"most that can stand for a table: ask for fewer, such as head=20, or of fewer columns"
            )
    return _section(_caption(wanted["part"] or "head", number, total), lines, number)


def _fitting(frame: pd.DataFrame, room: int, count: Count) -> str:
    """The first rows, as many as fit; cells give way before there are next to none."""
    total = len(frame)
    if not total or not frame.shape[1]:
        return ""
    few = frame.iloc[: max(room // 3, 0)]  # a row is never less than 3 tokens
    best, most = "", 0
    for width in (_CELL_WIDTH, _NARROW_WIDTH):
        lines = list(_rows(few, width))

        def text(number: int, lines: Sequence[str] = lines) -> str:
            return _section(_caption("head", number, total), lines[: number + 2], number)

        fitting = bisect_right(range(1, len(few) + 1), room, key=lambda number: count(text(number)))
        if fitting > most:
            best, most = text(fitting), fitting
        if most >= min(3, total):
            break
    return best or "\n\n(No row fits here.)"


def _section(caption: str, lines: Iterable[str], number: int) -> str:
    return "\n".join(["", "", caption, "", *lines]) if number else ""


def _caption(part: str, number: int, total: int) -> str:
    if number == total:
        return "All rows:" if total > 1 else "The row:"
    which = {"head": "First {} of {} rows:", "tail": "Last {} of {} rows:", "sample": "{} of {} rows, at random:"}[part]
    return which.format(f"{number:,}", f"{total:,}")


def _rows(frame: pd.DataFrame, width: int | None) -> Iterator[str]:
    """The lines of a table, header first. Without a width no cell is cut."""
    index = frame.index
    yield from _header(["" if name is None else _label(name) for name in [*index.names, *frame.columns]])
    columns: list[list[Any]] = [index.get_level_values(number).tolist() for number in range(index.nlevels)]
    columns += [frame.iloc[:, number].tolist() for number in range(frame.shape[1])]
    for row in zip(*columns, strict=True):
        yield _line([_cell(value, width) for value in row])


def _header(labels: list[str]) -> Iterator[str]:
    yield _line(labels)
    yield _line(["---"] * len(labels))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _label(label: object) -> str:
    """A column's name as code would write it: the text itself, or a tuple of several levels."""
    return _one_cell(repr(label), None) if isinstance(label, tuple) else _cell(label)


def _cell(value: Any, width: int | None = _CELL_WIDTH) -> str:
    try:
        return _one_cell(_words(value, width), width)
    except Exception:  # noqa: BLE001  # one object that cannot be printed is no reason to show none
        return f"({type(value).__name__} that cannot be shown)"


def _one_cell(text: str, width: int | None) -> str:
    if width is not None and len(text) > width:
        text = text[: width - 1] + "…"
    return _BREAKS.sub(r"\\n", text).replace("|", r"\|")


def _words(value: Any, width: int | None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) or type(value).__name__.startswith("float"):  # numpy's have other names, no other base
        return _figure(float(value), exact=width is None)
    own: Any = type(value).__str__
    if own is not object.__str__ and not hasattr(value, "__len__"):
        return str(value).removesuffix(" 00:00:00")
    return ADDRESS.sub("", repr(value) if width is None else _short(width).repr(value))


def _figure(number: float, *, exact: bool) -> str:
    if exact:
        return repr(number)
    if 1e6 <= abs(number) < 1e15:
        return f"{number:.2f}".removesuffix(".00")
    return f"{number:.6g}"


def _short(width: int) -> reprlib.Repr:
    """Makes the repr of a nested object without walking through all of it."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = width
    return short
