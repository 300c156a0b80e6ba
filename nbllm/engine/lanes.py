"""Lanes that compute with LoRA adapters: one for each set of them that is in use, a few at a time.

A context computes with the same adapters for all its sequences, so each set has a context of its own, and with it its
own evaluated prefixes. Contexts are made and freed on the engine's thread: llama.cpp's list of a model's adapters,
which every context reads, has no lock.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from nbllm.core import FinishReason
from nbllm.engine.adapters import AdapterSet
from nbllm.engine.interface import OnChunk
from nbllm.engine.jobs import Job
from nbllm.engine.lane import Books, Lane
from nbllm.engine.report import Counters, StepReport
from nbllm.engine.tickets import Inbox, LaneTicket
from nbllm.errors import EngineClosedError, EngineDeadError, InsufficientMemoryError, NbllmError

MOST_OPEN = 3
"""Contexts beside the plain ones."""
_logger = logging.getLogger("nbllm.engine")


class LaneKey(NamedTuple):
    """What the requests of one lane have in common."""

    adapters: AdapterSet
    fixed: bool


MakeLane = Callable[[LaneKey, Books], Lane]


class Steps(Protocol):
    """The driver, as far as lanes know it."""

    def attach(self, lane: AdaptedLane, max_threads: int | None = None) -> None: ...
    def detach(self, lane: AdaptedLane) -> None: ...
    def wake(self) -> None: ...


class AdaptedLanes:
    """The lanes of one engine that have adapters.

    When all places are taken, the idle lane that was used longest ago makes room. When none is idle, the oldest takes
    nothing new, and makes room when it has answered what it has: requests of that set then wait in their turn.

    Args:
        make: makes the context and its lane, on the engine's thread.
    """

    def __init__(
        self, make: MakeLane, driver: Steps, *, threads: int | None, clock: Callable[[], float], most: int = MOST_OPEN
    ) -> None:
        self._make, self._driver, self._threads, self._clock, self._most = make, driver, threads, clock, most
        self.counters = Counters()
        self._lock = threading.Lock()
        self._current: dict[LaneKey, AdaptedLane] = {}
        self._all: list[AdaptedLane] = []
        self._open: list[AdaptedLane] = []
        self._turns: list[AdaptedLane] = []
        self._uses = itertools.count()
        self._closed = False

    # ---- any thread

    def submit(
        self, key: LaneKey, jobs: tuple[Job, ...], on_chunk: OnChunk, deadline: float | None = None
    ) -> LaneTicket:
        """Hand a request in to the lane of its set. Raises EngineClosedError after `close`."""
        with self._lock:
            lane = self._current.get(key) or self._added(key)
            lane.last_use = next(self._uses)
            ticket = LaneTicket(lane, jobs, on_chunk, deadline)
            lane.submit(ticket)
        return ticket

    def _added(self, key: LaneKey) -> AdaptedLane:
        if self._closed:
            raise EngineClosedError("the model was closed; load it again with nbllm.load")
        lane = self._current[key] = AdaptedLane(key, self, self._make, self._clock, self._driver.wake)
        self._all.append(lane)
        self._driver.attach(lane, self._threads)
        return lane

    @property
    def loads(self) -> list[tuple[int, int, int, int]]:
        with self._lock:
            return [lane.load for lane in self._all]

    def close(self) -> None:
        """End what runs, and free the contexts."""
        with self._lock:
            self._closed = True
            lanes = list(self._all)
        for lane in lanes:
            self._driver.detach(lane)

    # ---- the engine's thread

    def has_place(self, lane: AdaptedLane) -> bool:
        """Whether it is the lane's turn to have a context; if need be, another one's is freed for it."""
        if lane not in self._turns:
            self._turns.append(lane)
        if self._turns[0] is not lane:
            return False
        if len(self._open) >= self._most and not self.free_idle():
            self._begin_to_empty_one()
            return False
        self._turns.remove(lane)
        self._open.append(lane)
        return True

    def free_idle(self, besides: AdaptedLane | None = None) -> bool:
        """Free the idle context that was used longest ago. False if all are busy."""
        for lane in sorted(self._open, key=lambda one: one.last_use):
            if lane is not besides and self._retired(lane):
                self._driver.detach(lane)
                return True
        return False

    def drop(self, lane: AdaptedLane) -> None:
        """The lane has no context and nothing to do. One that got a request meanwhile has to wait for its turn."""
        if self._retired(lane):
            self._driver.detach(lane)
        elif lane in self._open:
            self._open.remove(lane)

    def forget(self, lane: AdaptedLane) -> None:
        """The lane has ended."""
        with self._lock:
            self._leave(lane)

    def _retired(self, lane: AdaptedLane) -> bool:
        with self._lock:  # or a request could come in between
            if lane.has_work:
                return False
            self._leave(lane)
            return True

    def _leave(self, lane: AdaptedLane) -> None:
        if self._current.get(lane.key) is lane:
            del self._current[lane.key]
        for place in (self._all, self._open, self._turns):
            if lane in place:
                place.remove(lane)

    def _begin_to_empty_one(self) -> None:
        with self._lock:
            if all(self._current.get(lane.key) is lane for lane in self._open):
                del self._current[self._open[0].key]


class AdaptedLane:
    """A lane that gets its context when it has something to do and there is a place for it.

    `submit` and `cancel` are safe on any thread, as those of a Lane.
    """

    def __init__(
        self,
        key: LaneKey,
        lanes: AdaptedLanes,
        make: MakeLane,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self.key = key
        self.last_use = 0
        self._lanes, self._make, self._clock, self._wake = lanes, make, clock, wake
        self._inbox = Inbox()
        self._waiting: list[LaneTicket] = []
        self._lane: Lane | None = None

    # ---- any thread

    def submit(self, ticket: LaneTicket) -> None:
        """Take a request in, as `Lane.submit` does."""
        self._inbox.hand_in(ticket, self._wake)

    def cancel(self, ticket: LaneTicket) -> None:
        """End a request, whether it waits or runs."""
        if self._lane is not None:
            self._lane.cancel(ticket)
        else:
            self._inbox.cancel(ticket)
            self._wake()

    def stop_step(self) -> None:
        if self._lane is not None:
            self._lane.stop_step()

    @property
    def has_work(self) -> bool:
        """Asked after each step of the others while a request waits for a place, which costs little."""
        if self._lane is not None:
            return self._lane.has_work
        return self._inbox.has_news or bool(self._waiting)

    @property
    def load(self) -> tuple[int, int, int, int]:
        if self._lane is not None:
            return self._lane.load
        waiting = sum(ticket.num_open for ticket in list(self._waiting)) + self._inbox.num_arrived
        return 0, waiting, 0, 0

    # ---- the engine's thread

    def step(self, threads: int, prefill_threads: Callable[[], int]) -> StepReport | None:
        if self._lane is None:
            self._look()
            if not self._waiting:
                self._lanes.drop(self)
            elif self._lanes.has_place(self):
                self._open()
        return None if self._lane is None else self._lane.step(threads, prefill_threads)

    def close(self, error: BaseException | None = None) -> None:
        """End every request with `error` and free the context. Twice is harmless."""
        self._lanes.forget(self)
        if self._lane is not None:
            self._lane.close(error)
            return
        ended = error or EngineClosedError("the model was closed; load it again with nbllm.load")
        self._inbox.close(ended)
        self._fail(ended)

    def die(self, error: Exception) -> None:
        """Close because a step raised. The other lanes go on, and so does this set, in a new one."""
        self._lanes.forget(self)
        if self._lane is not None:
            self._lane.die(error)
            return
        _logger.exception("a lane with adapters stopped")
        self.close(EngineDeadError(f"the engine stopped: {error}; ask again"))

    # ---- while there is no context

    def _look(self) -> None:
        """Take arrivals in, and end what is not wanted any more."""
        self._waiting += self._inbox.arrivals()
        for ticket, reason in self._inbox.unwanted(self._clock()):
            self._waiting += self._inbox.arrivals()  # it may have come in since
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                _end(ticket, reason)

    def _open(self) -> None:
        while self._lane is None:
            try:
                self._lane = self._make(self.key, Books(self._inbox, self._waiting, self._lanes.counters))
            except InsufficientMemoryError as error:
                if not self._lanes.free_idle(besides=self):
                    return self._give_up(error)
            except NbllmError as error:
                return self._give_up(error)
        self._waiting.clear()
        return None

    def _give_up(self, error: NbllmError) -> None:
        self._fail(error)
        self._lanes.drop(self)

    def _fail(self, error: BaseException) -> None:
        self._waiting += self._inbox.arrivals()
        waiting, self._waiting = self._waiting, []
        for ticket in waiting:
            _end(ticket, "error", error)


def _end(ticket: LaneTicket, reason: FinishReason, error: BaseException | None = None) -> None:
    for job in ticket.jobs:
        job.sequence.is_finished = True
        chunks = job.finish(reason, error)
        job.close()
        for chunk in chunks:
            try:
                ticket.on_chunk(chunk)
            except Exception:  # a reader's bug must not take the engine with it
                _logger.exception("on_chunk raised")
        ticket.num_open -= 1
