"""Runs a table's requests: taken lazily, asked together, each different one once, and each answer kept at once."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Generic, TypeVar

from nbllm.core import ChoiceRequest, EmbedRequest, GenerateRequest
from nbllm.core.flag import Flag
from nbllm.errors import NbllmError, UnsupportedError, in_one_line
from nbllm.frames.asks import Ask, OnError, OnInterrupt, Outcome, Progress, RunOptions, row_seed
from nbllm.frames.keeping import Keeping
from nbllm.frames.landing import Flight
from nbllm.frames.progress import Meter
from nbllm.session.model import Model

__all__ = ["Ask", "OnError", "OnInterrupt", "Outcome", "Progress", "RunOptions", "reduced", "row_seed", "run"]

_CHUNK = 10_000
_WINDOW = 256
"""Requests that are with the engine at a time: enough to find common prefixes, and memory stays flat."""
_LOOK_S = 0.25
_WATCH_S = 0.05
_LAST_WORDS_S = 2.0
_logger = logging.getLogger("nbllm")
_Kept = TypeVar("_Kept")


def run(
    model: Model,
    asks: Iterable[Ask | NbllmError | None],
    total: int,
    options: RunOptions,
    *,
    stop: Flag | None = None,
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
        UnsupportedError: the model cannot say how likely choices are, which is so for every row.
        KeyboardInterrupt: it was interrupted; what is finished is in the cache, and it was said how much that is.
        concurrent.futures.CancelledError: `stop` was set, likewise. With on_interrupt="return" neither is raised.
    """
    return reduced(model, asks, total, options, lambda outcome: outcome, stop=stop)


def reduced(
    model: Model,
    asks: Iterable[Ask | NbllmError | None],
    total: int,
    options: RunOptions,
    reduce: Callable[[Outcome], _Kept],
    *,
    stop: Flag | None = None,
) -> list[_Kept | None]:
    """`run`, of whose outcomes no more is kept than what `reduce` makes of each: a million whole ones are gigabytes."""
    return _Run(model, total, options, reduce, stop or Flag()).run(asks)


class _Run(Generic[_Kept]):
    """One run. A row's place is open until its key's outcome is there."""

    def __init__(
        self,
        model: Model,
        total: int,
        options: RunOptions,
        reduce: Callable[[Outcome], _Kept],
        stop: Flag,
    ) -> None:
        begun = time.monotonic()
        info = model.info  # of a model on another server, asking costs a request
        self._model, self._name, self._num_slots = model, info.model.name, info.max_sequences
        self._options, self._reduce, self._stop = options, reduce, stop
        self._total, self._num_asked = total, total if options.limit is None else min(total, options.limit)
        self._keeping = Keeping(model, options.cache)
        self._meter = Meter(self._num_asked, options.progress, label=options.label, started=begun)
        self._inbox: queue.SimpleQueue[Flight] = queue.SimpleQueue()
        self._flights: dict[str, Flight] = {}
        self._kept: list[_Kept | None] = []
        self._places: dict[str, list[int]] = {}
        self._seen: dict[bytes, int] = {}  # the first row that asked it
        self._failed: dict[int, NbllmError] = {}

    def run(self, asks: Iterable[Ask | NbllmError | None]) -> list[_Kept | None]:
        try:
            for chunk in _chunks(islice(asks, self._num_asked)):
                self._answer(chunk)
        except KeyboardInterrupt as interrupt:
            self._break_off()
            self._meter.say(self._how_far())
            if self._options.on_interrupt == "raise":
                in_one_line(interrupt, "the run was stopped")
                _forget_the_wait(interrupt)
                raise
        except CancelledError:
            self._break_off()
            if self._options.on_interrupt == "raise":
                cancelled = CancelledError(self._how_far())
                in_one_line(cancelled, self._how_far())
                raise cancelled from None
        except BaseException:
            self._break_off()
            raise
        finally:
            self._meter.close()
        self._tell_of_errors()
        return self._kept + [None] * (self._total - len(self._kept))

    def _answer(self, chunk: list[Ask | NbllmError | None]) -> None:
        asks = self._opened(chunk)
        for key, outcome in self._keeping.find(asks).items():
            del asks[key]
            self._settle(key, outcome)
        waiting = sorted(asks.items(), key=_beginning, reverse=True)
        self._meter.expect(len(waiting), len(chunk), self._num_asked - len(self._kept))
        while waiting or self._flights:
            self._fill(waiting)
            self._receive()

    def _opened(self, chunk: list[Ask | NbllmError | None]) -> dict[str, Ask]:
        """The different requests of the chunk that were not asked before; their rows wait for them."""
        asks: dict[str, Ask] = {}
        num_settled = 0
        for place, ask in enumerate(chunk, len(self._kept)):
            self._kept.append(None)
            num_settled += ask is None or self._is_known(place, ask, asks)
        self._meter.advance(num_settled)
        self._look_for_stop()
        return asks

    def _is_known(self, place: int, ask: Ask | NbllmError, asks: dict[str, Ask]) -> bool:
        """Whether the row's outcome is there already; else the row waits for it."""
        try:
            if not isinstance(ask, Ask):
                raise ask
            ask = replace(ask, request=self._model.applied(ask.request))
            key = self._keeping.key(ask)
        except NbllmError as error:
            self._keep(_failed(error), [place])
            return True
        first = self._seen.get(_short(key))
        if first is None:
            asks.setdefault(key, ask)
            self._places.setdefault(key, []).append(place)
            return False
        self._kept[place] = self._kept[first]
        if first in self._failed:
            self._note_error(self._failed[first], [place])
        return True

    def _fill(self, waiting: list[tuple[str, Ask]]) -> None:
        """Hand over what comes next, which stands at the end."""
        while waiting and len(self._flights) < self._window():
            key, ask = waiting.pop()
            flight = self._flights[key] = Flight(key, ask, self._inbox.put, self._options.watch)
            try:
                flight.start(self._model.base_engine)  # the requests have what a preset adds
            except NbllmError as error:
                del self._flights[key]
                if isinstance(error, UnsupportedError) and isinstance(ask.request, ChoiceRequest):
                    raise  # such a request has no options, so what one row cannot have, none can
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
        places = self._places.pop(key)
        self._seen[_short(key)] = places[0]
        self._keep(outcome, places)
        self._meter.advance(len(places), computed=int(computed), took_s=outcome.duration_s)

    def _keep(self, outcome: Outcome, places: list[int]) -> None:
        kept = self._reduce(outcome)
        for place in places:
            self._kept[place] = kept
        if outcome.error is not None:
            self._note_error(outcome.error, places)

    def _note_error(self, error: NbllmError, places: list[int]) -> None:
        if self._options.on_error == "raise":
            raise error
        self._failed |= dict.fromkeys(places, error)

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
        if not self._failed or self._options.on_error != "keep":
            return
        first = min(self._failed)
        error = self._failed[first]
        _logger.warning(
            "%s of %s rows failed; the first is row %s: %s: %s",
            f"{len(self._failed):,}", f"{self._num_asked:,}", f"{first:,}", type(error).__name__, error,
        )  # fmt: skip


def _chunks(asks: Iterator[Ask | NbllmError | None]) -> Iterator[list[Ask | NbllmError | None]]:
    while chunk := list(islice(asks, _CHUNK)):
        yield chunk


def _forget_the_wait(interrupt: KeyboardInterrupt) -> None:
    """One that came just as the queue was found empty is about the run all the same."""
    if isinstance(interrupt.__context__, queue.Empty):
        interrupt.__context__ = interrupt.__context__.__context__


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
