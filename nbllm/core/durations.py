"""Lengths of time as settings and API clients write them: seconds, or Go's text for a duration."""

from __future__ import annotations

import math
import re

from nbllm.errors import ParameterError

FOREVER = -1.0
"""What every negative length means, and one beyond a century, where the timers of operating systems overflow."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_TERM = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_TEXT = re.compile(rf"([+-]?)((?:{_NUMBER}(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_BARE = re.compile(rf"[+-]?{_NUMBER}", re.ASCII)
_MOST_CHARACTERS = 64
_CENTURY_S = 100 * 365 * 86_400.0
_ALLOWED = 'must be seconds or a text such as "5m", "1h30m" or "-1" for ever'


def parse_duration(value: object) -> float:
    """The seconds that a `keep_alive` says: a number, or text as "5m", "1h30m", "300"; negative is FOREVER.

    Raises:
        ParameterError: it is neither; `param` is "keep_alive".
    """
    seconds = _from_text(value.strip()) if isinstance(value, str) else _from_number(value)
    if seconds is None:
        raise ParameterError("keep_alive", f"{_ALLOWED}, not {value!r:.60}")
    return FOREVER if seconds < 0 or seconds > _CENTURY_S else abs(seconds)


def _from_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _from_text(text: str) -> float | None:
    if len(text) > _MOST_CHARACTERS:
        return None
    if _BARE.fullmatch(text):
        return float(text)
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _TERM.findall(match[2]))
    return -seconds if match[1] == "-" else seconds
