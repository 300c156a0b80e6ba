"""JSON values as pandas' columns have them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

TEXT = "str"
INTEGER = "Int64"
NUMBER = "Float64"
BOOLEAN = "boolean"
DATE = "datetime64[us]"
MOMENT = "datetime64[us, UTC]"
"""With a time zone, which JSON Schema's date-time always has; brought to one, for a column has only one."""
OBJECT = "object"

_TYPES = {"string": TEXT, "integer": INTEGER, "number": NUMBER, "boolean": BOOLEAN}
_FORMATS = {"date": DATE, "date-time": MOMENT}
_DEEPEST = 20
_INT64 = range(-(2**63), 2**63)


def dtype_of(schema: object, root: object) -> str:
    """The dtype of the column for values of a JSON Schema; "object" for lists, objects, and what may be several.

    Args:
        root: what `$ref` points into.
    """
    kinds = set(_kinds(schema, root, _DEEPEST)) - {None}
    if kinds == {INTEGER, NUMBER}:
        return NUMBER
    return kinds.pop() or OBJECT if len(kinds) == 1 else OBJECT


def typed(rows: Sequence[Sequence[Any]], columns: Mapping[Any, str], index: pd.Index[Any]) -> pd.DataFrame:
    """Rows as a frame with columns of these dtypes. There may be fewer than the index has: the others are missing."""
    import pandas as pd

    by_column = list(zip(*rows, strict=True)) or [()] * len(columns)
    padding = [None] * (len(index) - len(rows))
    return pd.DataFrame(
        {
            name: pd.Series([*values, *padding], index=index, dtype=dtype)
            for (name, dtype), values in zip(columns.items(), by_column, strict=True)
        },
        index=index,
    )


def fitted(value: object, dtype: str) -> Any:
    """The value for a column of this dtype, None when it is missing or not of its kind."""
    if value is None or dtype == OBJECT:
        return value
    return _FITS[dtype](value)


def _kinds(schema: object, root: object, depth: int) -> Iterator[str | None]:
    """The dtypes of all that the schema allows; None for null."""
    if not isinstance(schema, Mapping) or depth == 0:
        yield OBJECT
    elif "$ref" in schema:
        yield from _kinds(resolved(schema["$ref"], root), root, depth - 1)
    elif "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        yield from map(_kind_of_value, values if isinstance(values, list) else [values])
    elif "type" in schema:
        types = schema["type"]
        for name in types if isinstance(types, list) else [types]:
            yield _kind_of_type(name, schema)
    else:
        yield from _of_alternatives(schema, root, depth)


def _of_alternatives(schema: Mapping[str, Any], root: object, depth: int) -> Iterator[str | None]:
    for word in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(word)
        if isinstance(parts, list) and parts and (word != "allOf" or len(parts) == 1):
            for part in parts:
                yield from _kinds(part, root, depth - 1)
            return
    yield OBJECT


def _kind_of_type(name: object, schema: Mapping[str, Any]) -> str | None:
    if name == "null":
        return None
    kind = _TYPES.get(name, OBJECT) if isinstance(name, str) else OBJECT
    form = schema.get("format")
    return _FORMATS.get(form, TEXT) if kind == TEXT and isinstance(form, str) else kind


def _kind_of_value(value: object) -> str | None:
    if value is None:
        return None
    for kind, dtype in ((bool, BOOLEAN), (int, INTEGER), (float, NUMBER), (str, TEXT)):
        if isinstance(value, kind):
            return dtype
    return OBJECT


def resolved(reference: object, root: object) -> object:
    """What a `$ref` within the schema points to, None for any other."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if name:
            place = place.get(name) if isinstance(place, Mapping) else None
    return place


def well_formed(text: str) -> str:
    """JSON, such as another server's, may spell half of a surrogate pair, which no column of text can hold."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text(value: object) -> str | None:
    return well_formed(value) if isinstance(value, str) else None


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():  # nor is an infinite one
        return None
    return int(value) if int(value) in _INT64 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _date(value: object) -> datetime.datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return datetime.datetime.combine(datetime.date.fromisoformat(value), datetime.time())
    except ValueError:
        return None


def _moment(value: object) -> datetime.datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.datetime.fromisoformat(value)
        return moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):  # brought to UTC, the first and the last day may leave the calendar
        return None


_FITS: Mapping[str, Callable[[object], Any]] = {
    TEXT: _text,
    INTEGER: _integer,
    NUMBER: _number,
    BOOLEAN: lambda value: value if isinstance(value, bool) else None,
    DATE: _date,
    MOMENT: _moment,
}
