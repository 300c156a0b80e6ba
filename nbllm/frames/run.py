"""Runs a table's requests: taken lazily, asked together, each different one once, and each answer kept at once."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from itertools import islice

from nbllm.core import EmbedRequest, GenerateRequest
from nbllm.errors import NbllmError
from nbllm.frames.asks import Ask, OnError, OnInterrupt, Outcome, Progress, RunOptions, row_seed
from nbllm.frames.keeping import Keeping
from nbllm.frames.landing import Flight
from nbllm.frames.progress import Meter
from nbllm.session.model import Model

__all__ = ["Ask", "OnError", "OnInterrupt", "Outcome", "Progress", "RunOptions", "row_seed", "run"]

_CHUNK = 10_000
_WINDOW = 256
"""Requests that are with the engine at a time: enough to find common prefixes, and memory stays flat."""
_LOOK_S = 0.25
_WATCH_S = 0.05
_LAST_WORDS_S = 2.0
_logger = logging.getLogger("nbllm")


def run(
    model: Model,
    asks: Iterable[Ask | NbllmError | None],
    total: int,
    options: RunOptions,
    *,
    stop: threading.Event | None = None,
) -> list[Outcome | None]:
    """What became of each row, in the order of the rows.

    Neither that order, nor what else is asked, nor what earlier runs left in the cache changes a row's value.

    Args:
        asks: one a row, taken as they are needed: None for a row that asks nothing, and an error for one that has no
            request. Rows that ask the same are asked once.
        total: how many rows there are, and how long the result is; rows beyond are not looked at.
        stop: ends the run when it is set.

    Raises:
        NbllmError: the first row's that has one, with on_error="raise".
        KeyboardInterrupt: it was interrupted; what is finished is in the cache, and it was said how much that is.
        concurrent.futures.CancelledError: `stop` was set, likewise. With on_interrupt="return" neither is raised.
    """
    return _Run(model, total, options, stop or threading.Event()).run(asks)


class _Run:
    """One run. A row's place is open until its key's outcome is there."""

    def __init__(self, model: Model, total: int, options: RunOptions, stop: threading.Event) -> None:
        info = model.info  # of a model on another server, asking costs a request
        self._engine, self._name, self._num_slots = model.engine, info.model.name, info.max_sequences
        self._options, self._stop = options, stop
        self._total, self._num_asked = total, total if options.limit is None else min(total, options.limit)
        self._keeping = Keeping(model, options.cache)
        self._meter = Meter(self._num_asked, options.progress)
        self._inbox: queue.SimpleQueue[Flight] = queue.SimpleQueue()
        self._flights: dict[str, Flight] = {}
        self._outcomes: list[Outcome | None] = []
        self._places: dict[str, list[int]] = {}
        self._seen: dict[bytes, Outcome] = {}
        self._num_failed, self._first_failed = 0, -1

    def run(self, asks: Iterable[Ask | NbllmError | None]) -> list[Outcome | None]:
        try:
            for chunk in _chunks(islice(asks, self._num_asked)):
                self._answer(chunk)
        except KeyboardInterrupt:
            self._break_off()
            self._meter.say(self._how_far())
            if self._options.on_interrupt == "raise":
                raise
        except CancelledError:
            self._break_off()
            if self._options.on_interrupt == "raise":
                raise CancelledError(self._how_far()) from None
        except BaseException:
            self._break_off()
            raise
        finally:
            self._meter.close()
        self._tell_of_errors()
        return self._outcomes + [None] * (self._total - len(self._outcomes))

    def _answer(self, chunk: list[Ask | NbllmError | None]) -> None:
        asks = self._opened(chunk)
        for key, outcome in self._keeping.find(asks).items():
            del asks[key]
            self._settle(key, outcome)
        waiting = sorted(asks.items(), key=_beginning, reverse=True)
        self._meter.expect(len(waiting), len(chunk), self._num_asked - len(self._outcomes))
        while waiting or self._flights:
            self._fill(waiting)
            self._receive()

    def _opened(self, chunk: list[Ask | NbllmError | None]) -> dict[str, Ask]:
        """The different requests of the chunk that were not asked before; their rows wait for them."""
        asks: dict[str, Ask] = {}
        num_settled = 0
        for ask in chunk:
            outcome = None if ask is None else self._known(len(self._outcomes), ask, asks)
            self._outcomes.append(outcome)
            num_settled += ask is None or outcome is not None
        self._meter.advance(num_settled)
        self._look_for_stop()
        return asks

    def _known(self, place: int, ask: Ask | NbllmError, asks: dict[str, Ask]) -> Outcome | None:
        """The row's outcome if there is one already; else the row waits for it."""
        if not isinstance(ask, Ask):
            self._note_error(ask, [place])
            return _failed(ask)
        try:
            key = self._keeping.key(ask)
        except NbllmError as error:
            return self._known(place, error, asks)
        seen = self._seen.get(_short(key))
        if seen is None:
            asks.setdefault(key, ask)
            self._places.setdefault(key, []).append(place)
        elif seen.error is not None:
            self._note_error(seen.error, [place])
        return seen

    def _fill(self, waiting: list[tuple[str, Ask]]) -> None:
        """Hand over what comes next, which stands at the end."""
        while waiting and len(self._flights) < self._window():
            key, ask = waiting.pop()
            flight = self._flights[key] = Flight(key, ask, self._inbox.put, self._options.watch)
            try:
                flight.start(self._engine)
            except NbllmError as error:
                del self._flights[key]
                self._settle(key, _failed(error), computed=True)

    def _window(self) -> int:
        """The estimate comes before the rest starts, so until then only what it needs and what keeps the slots full."""
        window = min(_WINDOW, self._options.max_concurrency or _WINDOW)
        needed = self._meter.rows_before_estimate
        return window if needed is None else min(window, needed + self._num_slots)

    def _receive(self) -> None:
        self._look_for_stop()
        if self._flights:
            watch = self._options.watch
            with suppress(queue.Empty):
                self._land(self._inbox.get(timeout=_LOOK_S if watch is None else _WATCH_S))
            self._meter.tick()
            if watch is not None:
                watch.show()

    def _land(self, flight: Flight) -> None:
        """The flight stays where an interrupt finds it until its answer is kept."""
        landed = flight.landed(self._name)
        self._keeping.put(flight.key, flight.ask, landed.response, landed.outcome)
        self._flights.pop(flight.key, None)
        self._settle(flight.key, landed.outcome, computed=True)

    def _settle(self, key: str, outcome: Outcome, *, computed: bool = False) -> None:
        places = self._places.pop(key, [])
        self._seen[_short(key)] = outcome
        for place in places:
            self._outcomes[place] = outcome
        self._meter.advance(len(places), computed=int(computed))
        if outcome.error is not None and places:
            self._note_error(outcome.error, places)

    def _note_error(self, error: NbllmError, places: list[int]) -> None:
        if self._options.on_error == "raise":
            raise error
        first = min(places) if self._num_failed == 0 else min(self._first_failed, *places)
        self._num_failed, self._first_failed = self._num_failed + len(places), first

    def _look_for_stop(self) -> None:
        if self._stop.is_set():
            raise CancelledError

    def _how_far(self) -> str:
        then = "run again to resume" if self._keeping.is_on else "and nothing is kept: there is no cache for this run"
        return f"{self._meter.done}/{self._num_asked} done, {then}"

    def _break_off(self) -> None:
        """End what is with the engine, and keep what has come to its end until then."""
        deadline = time.monotonic() + _LAST_WORDS_S
        with suppress(KeyboardInterrupt):
            for flight in self._flights.values():
                flight.cancel()
            for flight in self._flights.values():
                flight.wait(deadline - time.monotonic())
        for flight in list(self._flights.values()):
            if not flight.is_broken_off:
                with suppress(NbllmError):  # one error is being told already
                    self._land(flight)

    def _tell_of_errors(self) -> None:
        if not self._num_failed or self._options.on_error != "keep":
            return
        first = self._outcomes[self._first_failed]
        error = None if first is None else first.error
        _logger.warning(
            "%s of %s rows failed; the first is row %s: %s: %s",
            f"{self._num_failed:,}", f"{self._num_asked:,}", f"{self._first_failed:,}", type(error).__name__, error,
        )  # fmt: skip


def _chunks(asks: Iterator[Ask | NbllmError | None]) -> Iterator[list[Ask | NbllmError | None]]:
    while chunk := list(islice(asks, _CHUNK)):
        yield chunk


def _failed(error: NbllmError) -> Outcome:
    """Without its traceback, whose frames would keep all the rows around it in memory."""
    return Outcome(None, error.with_traceback(None))


def _short(key: str) -> bytes:
    """Enough to tell a million keys apart, in less memory."""
    return bytes.fromhex(key[:32])


def _beginning(item: tuple[str, Ask]) -> tuple[str, ...]:
    """Sorted by it, rows that begin alike are neighbours, so that the engine evaluates the beginning once."""
    request = item[1].request
    if isinstance(request, EmbedRequest):
        return request.texts
    if request.messages is not None:
        return tuple(part for message in request.messages for part in (message.role, message.content))
    return _raw_beginning(request)


def _raw_beginning(request: GenerateRequest) -> tuple[str, ...]:
    if request.text is not None:
        return (request.text,)
    return tuple(f"{token:08x}" for token in request.tokens or ())
