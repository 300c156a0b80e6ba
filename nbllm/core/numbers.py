"""Numbers as people and JSON write them, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nbllm.errors import ParameterError


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a parameter may take, both ends included."""

    kind: type
    low: float
    high: float
    doc: str

    def checked(self, name: str, value: object) -> float | int:
        number = as_number(self.kind, value)
        if number is None:
            article = "a whole number" if self.kind is int else "a number"
            raise ParameterError(name, f"must be {article}, not {value!r:.100}")
        if not self.low <= number <= self.high:
            raise ParameterError(name, f"{value!r:.100} is out of range: {self.doc}")
        return number


def as_number(kind: type, value: object) -> float | int | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # numpy's scalars convert, and what does not is an answer
    except (TypeError, ValueError, OverflowError):
        return None
    if isinstance(value, str | bytes) or not math.isfinite(number):
        return None
    if kind is float:
        return number
    return int(value) if number.is_integer() else None  # type: ignore[call-overload]
