"""Lengths of time and speeds, as a person reads them."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 5 min"; a tenth of a second below ten."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def rate_text(rows: int, seconds: float) -> str:
    """ "5.1 rows/s"; below a tenth of a row, the time of one."""
    rate = rows / seconds if seconds > 0 else float("inf")
    if rate < 0.1:
        return f"{duration_text(1 / rate)} a row" if rate > 0 else "0 rows/s"
    return f"{rate:,.0f} rows/s" if rate >= 10 else f"{rate:.1f} rows/s"


def rough(seconds: float) -> float:
    """No more digits than an estimate has: tens of seconds from a minute on, minutes from ten on."""
    step = 1 if seconds < 60 else 10 if seconds < 600 else 60
    return round(seconds / step) * step if seconds >= 10 else seconds
