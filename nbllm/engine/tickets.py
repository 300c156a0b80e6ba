"""A request in a lane, and the box through which other threads hand requests in and take them back."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from nbllm.core import FinishReason
from nbllm.engine.interface import OnChunk
from nbllm.engine.jobs import Job


class Canceller(Protocol):
    """The lane, as far as a ticket knows it."""

    def cancel(self, ticket: LaneTicket) -> None: ...


@dataclass(eq=False, slots=True)
class LaneTicket:
    """A request in a lane: its jobs, and where their chunks go."""

    lane: Canceller
    jobs: tuple[Job, ...]
    on_chunk: OnChunk
    deadline: float | None = None
    num_open: int = 0
    is_cancelled: bool = False

    @property
    def is_done(self) -> bool:
        return self.num_open == 0

    def cancel(self) -> None:
        if not self.is_done:
            self.lane.cancel(self)


class Inbox:
    """What other threads want of a lane. `put` and `cancel` are safe anywhere; the rest is for the engine's thread."""

    def __init__(self) -> None:
        self._arrived: deque[LaneTicket] = deque()
        self._cancelled: deque[LaneTicket] = deque()
        self._deadlines: list[tuple[float, int, LaneTicket]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self.ended: BaseException | None = None

    @property
    def has_news(self) -> bool:
        return bool(self._arrived or self._cancelled)

    @property
    def num_arrived(self) -> int:
        """Requests that are not taken in yet."""
        return len(self._arrived)

    def put(self, ticket: LaneTicket) -> None:
        """Hand a request in. Raises the error that the box was closed with."""
        with self._lock:
            if self.ended is not None:
                raise self.ended
            ticket.num_open = len(ticket.jobs)
            self._arrived.append(ticket)

    def hand_in(self, ticket: LaneTicket, wake: Callable[[], None]) -> None:
        """`put`, and say that there is something to do; after an interrupt in between nobody is left to answer."""
        try:
            self.put(ticket)
            wake()
        except BaseException:  # whoever asked gets no ticket to cancel it with
            ticket.cancel()
            raise

    def cancel(self, ticket: LaneTicket) -> None:
        ticket.is_cancelled = True
        self._cancelled.append(ticket)

    def close(self, error: BaseException) -> bool:
        """Take nothing more. False if that was so already."""
        with self._lock:
            if self.ended is not None:
                return False
            self.ended = error
            return True

    def arrivals(self) -> Iterator[LaneTicket]:
        """The requests that came since the last look, each once."""
        while self._arrived:
            ticket = self._arrived.popleft()
            if ticket.deadline is not None:
                heapq.heappush(self._deadlines, (ticket.deadline, next(self._order), ticket))
            yield ticket

    def unwanted(self, now: float) -> Iterator[tuple[LaneTicket, FinishReason]]:
        """The requests to end, and why. One that was cancelled may still be among the arrivals."""
        while self._cancelled:
            yield self._cancelled.popleft(), "interrupted"
        while self._deadlines and self._deadlines[0][0] <= now:
            yield heapq.heappop(self._deadlines)[2], "timeout"
