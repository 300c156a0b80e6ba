"""JSON from a server that may send anything."""

from __future__ import annotations

from typing import Any

import msgspec


def parsed(data: bytes | str) -> Any:
    """The value of a JSON text, None if it is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
        return None


def count(fields: object, name: str) -> int:
    """A whole number of an object, 0 when there is none."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else 0


def number(fields: object, name: str) -> float:
    """A number of an object, 0.0 when there is none."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def text(fields: object, *names: str) -> str:
    """The first of the named texts in an object, "" when there is none."""
    values = (fields.get(name) for name in names) if isinstance(fields, dict) else ()
    return next((value for value in values if isinstance(value, str) and value), "")


def entries(fields: object, name: str) -> list[Any]:
    """A list in an object, empty when there is none."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, list) else []
