"""Which runner goes, and when; which one has to wait. Pure policy: no clock, no process.

All times are seconds of one clock, whichever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

MAX_BACKOFF_S = 60.0
GOOD_LIFE_S = 60.0
"""A runner that lived so long has nothing to do with the crashes before it."""


class Occupant(Protocol):
    """A loaded model, as far as the policy needs to know it.

    Attributes:
        num_users: that hold it or wait for it.
        last_used: when the last one left, or when it was loaded.
        keep_alive_s: how long it stays without users; negative is forever.
    """

    @property
    def num_users(self) -> int: ...
    @property
    def last_used(self) -> float: ...
    @property
    def keep_alive_s(self) -> float: ...


_O = TypeVar("_O", bound=Occupant)


def is_full(num_loaded: int, max_loaded: int) -> bool:
    """Whether one more is too many; a `max_loaded` of 0 leaves it to the memory."""
    return 0 < max_loaded <= num_loaded


def least_recently_used(loaded: Iterable[_O]) -> _O | None:
    """The idle one that has to go first; None when all are in use."""
    idle = [occupant for occupant in loaded if not occupant.num_users]
    return min(idle, key=lambda occupant: occupant.last_used, default=None)


def expires_at(occupant: Occupant) -> float | None:
    """When it goes if nobody asks for it; None for never, and while it is in use."""
    if occupant.num_users or occupant.keep_alive_s < 0:
        return None
    return occupant.last_used + occupant.keep_alive_s


def expired(loaded: Iterable[_O], now: float) -> list[_O]:
    """Those whose time has come."""
    return [occupant for occupant in loaded if (due := expires_at(occupant)) is not None and due <= now]


def next_expiry(loaded: Iterable[Occupant]) -> float | None:
    """When to look again."""
    return min((due for occupant in loaded if (due := expires_at(occupant)) is not None), default=None)


@dataclass(slots=True)
class Backoff:
    """Keeps a model that crashes from being loaded over and over.

    After a first crash it may be loaded again at once, then after 1 s, 2 s, 4 s ... up to a minute.
    """

    num_crashes: int = 0
    since: float = 0.0
    until: float = 0.0

    def crashed(self, now: float, lived_s: float) -> None:
        """Note that a runner died, having been ready for `lived_s`."""
        self.num_crashes = 1 if lived_s >= GOOD_LIFE_S else self.num_crashes + 1
        self.since, self.until = now, now + self._delay_s()

    def retry_after_s(self, now: float) -> float:
        """How long to wait still; 0 when it may be started."""
        return max(0.0, self.until - now)

    def is_over(self, now: float) -> bool:
        """Whether the crashes are so long ago that they need not be remembered."""
        return now >= self.until + GOOD_LIFE_S

    def _delay_s(self) -> float:
        if self.num_crashes < 2:
            return 0.0
        return min(MAX_BACKOFF_S, 2.0 ** min(self.num_crashes - 2, 16))
