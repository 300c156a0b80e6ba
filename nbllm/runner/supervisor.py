"""Has the right runners running: loads what is asked for, unloads what is not, and starts again what died.

    nothing ── lease ──> starting ──> ready ── idle for keep_alive, or another needs its place ──> stopping ──> nothing
                            │           │
                            └── crash ──┴──> backing off ── a lease, in time ──> starting

Everything here runs on one event loop; processes are started and stopped in threads.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

from nbllm.errors import EngineClosedError, EngineError, NbllmError
from nbllm.runner import pool
from nbllm.runner.changes import Changes, in_thread
from nbllm.runner.client import RemoteEngine
from nbllm.runner.entry import Entry, Runner, RunnerState, Starter, backing_off, described
from nbllm.runner.errors import BusyError, LoadCrashError, RunnerBackoffError
from nbllm.runner.spec import Key, RunnerSpec

_BUSY_RETRY_S = 5.0
"""What a client is told to wait when nothing says how long: the length of a shorter answer."""
_GUEST_CHECK_S = 5.0
"""How soon at least it is looked again whether a runner's guests, the kernels that are attached to it, have left."""


class Lease:
    """The use of an engine: until it is released, its runner is not unloaded."""

    def __init__(self, supervisor: Supervisor, entry: Entry, engine: RemoteEngine) -> None:
        self._supervisor, self._entry = supervisor, entry
        self._is_released = False
        self.engine = engine

    def used_as(self, name: str) -> None:
        """For the list of runners: several models may be made of the weights that one has loaded."""
        self._entry.names[name] = None

    def release(self) -> None:
        """Give it back, on the event loop. Twice is harmless."""
        if not self._is_released:
            self._is_released = True
            self._supervisor._release(self._entry)

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Supervisor:
    """Owns the runners. Use it on one event loop, and close it there.

    Args:
        start: loads a model in a process.
        max_loaded: most runners at a time; 0 for as many as the memory holds.
        keep_alive_s: how long a runner stays without use, where its last request did not say; negative is forever.
        load_timeout_s: how long a request waits for its model.
        fits: whether there is memory for a model; called in a thread.
        clock: seconds, and `sleep`: by that clock.
    """

    def __init__(
        self,
        start: Starter,
        *,
        max_loaded: int = 2,
        keep_alive_s: float = 300.0,
        load_timeout_s: float = 120.0,
        fits: Callable[[RunnerSpec], bool] = lambda spec: True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._start, self._fits, self._clock = start, fits, clock
        self._max_loaded, self._keep_alive_s, self._load_timeout_s = max_loaded, keep_alive_s, load_timeout_s
        self._entries: dict[Key, Entry] = {}
        self._backoffs: dict[Key, tuple[RunnerSpec, pool.Backoff]] = {}
        self._admission = asyncio.Lock()  # first come, first served: a waiter is not overtaken by a smaller model
        self._changes = Changes(clock, sleep)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_watched = self._is_closed = False

    async def lease(self, spec: RunnerSpec, *, keep_alive_s: float | None = None) -> Lease:
        """Get an engine for the model, loading it if need be: `async with await supervisor.lease(spec) as lease`.

        Args:
            keep_alive_s: how long the runner stays after its last use, until another request says otherwise.

        Raises:
            ModelError, InvalidRequestError: the model cannot be loaded, or not with these options.
            RunnerBackoffError: it crashed a moment ago.
            BusyError: there was no place for it, or it was not loaded, in time.
            EngineError: its process could not be started, or the supervisor was closed.
        """
        deadline = self._clock() + self._load_timeout_s
        while True:
            entry = self._entry(spec)
            if entry.state == "ready" and entry.runner is not None:
                return self._leased(entry, entry.runner, keep_alive_s)
            await self._wait(entry, deadline)
            if entry.error is not None:
                raise copy.copy(entry.error) from entry.error.__cause__  # each waiter needs a traceback of its own

    def loaded(self) -> list[RunnerState]:
        """What there is, also what is coming and going."""
        now = self._clock()
        states = [described(entry) for entry in self._entries.values()]
        for key, (spec, backoff) in self._backoffs.items():
            if key not in self._entries and backoff.retry_after_s(now):
                states.append(backing_off(spec, backoff))
        return states

    async def unload(
        self, target: str | RunnerSpec, *, where: Callable[[Collection[str]], bool] = lambda names: True
    ) -> bool:
        """Unload by name or spec: what is idle now, and the rest as soon as it is. False when there is no such runner.

        It waits for those that go now.

        Args:
            where: of these, only the ones whose names (what they were asked for as) make it true.
        """
        key = target.key if isinstance(target, RunnerSpec) else None
        chosen = [
            entry
            for entry in self._entries.values()
            if (target == entry.spec.name or key == entry.spec.key) and where(entry.names)
        ]
        for entry in chosen:
            entry.keep_alive_s = 0.0
        self._unload_expired()
        if going := [entry.work for entry in chosen if entry.state == "stopping" and entry.work is not None]:
            await asyncio.wait(going)
        return bool(chosen)

    async def close(self) -> None:
        """End all runners, also those that are being loaded, and wait until they are gone. Twice is harmless."""
        self._is_closed = True
        for entry in self._entries.values():
            entry.cancelled.set()
            if entry.state == "ready":
                self._stop(entry)
        self._changes.notify()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # ---- leases

    def _entry(self, spec: RunnerSpec) -> Entry:
        """The one for the spec; one that begins to load if there is none that lives."""
        if self._is_closed:
            raise EngineClosedError("the notebook server's runners were closed")
        entry = self._entries.get(spec.key)
        if entry is not None and entry.state == "ready" and not (entry.runner and entry.runner.is_alive):
            self._crashed(entry)
            entry = None
        if entry is None:
            self._check_backoff(spec)
            now = self._clock()
            entry = self._entries[spec.key] = Entry(spec, "starting", now, self._keep_alive_s, now)
            entry.work = self._task(self._load(entry))
        if not self._is_watched:
            self._is_watched = True
            self._task(self._watch())
        return entry

    def _leased(self, entry: Entry, runner: Runner, keep_alive_s: float | None) -> Lease:
        entry.num_active += 1
        entry.keep_alive_s = self._keep_alive_s if keep_alive_s is None else keep_alive_s
        return Lease(self, entry, runner.engine)

    def _release(self, entry: Entry) -> None:
        entry.num_active -= 1
        entry.last_used = self._clock()
        self._changes.notify()

    async def _wait(self, entry: Entry, deadline: float) -> None:
        """Until it has been loaded, or has gone."""
        if entry.work is None:
            return
        entry.num_waiting += 1  # or it might be unloaded between the end of its loading and the lease
        try:
            if not await self._changes.in_time(entry.work, deadline):
                raise BusyError(
                    f"{entry.spec.name} was not loaded within {self._load_timeout_s:g} s; it may be a little later",
                    _BUSY_RETRY_S,
                )
        finally:
            entry.num_waiting -= 1
            self._changes.notify()

    def _check_backoff(self, spec: RunnerSpec) -> None:
        now = self._clock()
        self._backoffs = {key: known for key, known in self._backoffs.items() if not known[1].is_over(now)}
        if spec.key not in self._backoffs:
            return
        backoff = self._backoffs[spec.key][1]
        if retry_after_s := backoff.retry_after_s(now):
            raise RunnerBackoffError(
                f"{spec.name} crashed {backoff.num_crashes} times in a row and is loaded again in "
                f"{retry_after_s:.1f} s",
                retry_after_s,
            )

    # ---- a runner's life

    async def _load(self, entry: Entry) -> None:
        try:
            async with self._admission:
                await self._make_room(entry)
                entry.has_place = True
            runner = await in_thread(partial(self._started, entry), f"load-{entry.spec.name}")
        except NbllmError as exc:
            self._failed(entry, exc)
        except asyncio.CancelledError:  # the whole loop ends
            entry.cancelled.set()
            self._forget(entry)
            raise
        except Exception as exc:  # noqa: BLE001  # waiters must hear of it
            self._failed(entry, EngineError(f"{entry.spec.name} could not be loaded: {type(exc).__name__}: {exc}"))
        else:
            self._loaded(entry, runner)

    def _started(self, entry: Entry) -> Runner:
        runner = self._start(entry.spec, entry.cancelled)
        if entry.cancelled.is_set():
            runner.stop()
            raise EngineClosedError(f"loading {entry.spec.name} was given up")
        return runner

    def _loaded(self, entry: Entry, runner: Runner) -> None:
        entry.runner = runner
        entry.state, entry.since, entry.last_used = "ready", self._clock(), self._clock()
        if self._is_closed:
            self._stop(entry)
        loop = asyncio.get_running_loop()

        def gone() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._gone, entry)

        runner.when_gone(gone)
        self._changes.notify()

    def _failed(self, entry: Entry, error: NbllmError) -> None:
        entry.error = error
        is_refusal = not isinstance(error, EngineError | LoadCrashError)
        if not (is_refusal or isinstance(error, BusyError | EngineClosedError)):
            self._note_crash(entry, lived_s=0.0)
        self._forget(entry)

    def _gone(self, entry: Entry) -> None:
        if entry.state == "ready" and self._entries.get(entry.spec.key) is entry:
            self._crashed(entry)

    def _crashed(self, entry: Entry) -> None:
        self._note_crash(entry, lived_s=self._clock() - entry.since)
        self._forget(entry)
        if entry.runner is not None:  # a process may be left whose connection was lost
            self._task(in_thread(entry.runner.stop, f"stop-{entry.spec.name}"))

    def _note_crash(self, entry: Entry, *, lived_s: float) -> None:
        _, backoff = self._backoffs.setdefault(entry.spec.key, (entry.spec, pool.Backoff()))
        backoff.crashed(self._clock(), lived_s)

    def _stop(self, entry: Entry) -> None:
        entry.state, entry.since = "stopping", self._clock()
        entry.work = self._task(self._stopped(entry))

    async def _stopped(self, entry: Entry) -> None:
        try:
            if entry.runner is not None:
                await in_thread(entry.runner.stop, f"stop-{entry.spec.name}")
        finally:
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        entry.has_place = False
        if self._entries.get(entry.spec.key) is entry:
            del self._entries[entry.spec.key]
        self._changes.notify()

    # ---- room, and idle runners

    async def _make_room(self, entry: Entry) -> None:
        while others := self._placed():
            is_full = pool.is_full(len(others), self._max_loaded)
            if not is_full and await in_thread(partial(self._fits, entry.spec), "memory"):
                return
            await self._one_less(entry, others)

    async def _one_less(self, entry: Entry, others: list[Entry]) -> None:
        """Wait until one of the others has gone, and unload the one that was not used for longest."""
        deadline = entry.since + self._load_timeout_s
        while self._placed() == others:
            is_one_going = any(other.state == "stopping" for other in others)
            victim = pool.least_recently_used(each for each in others if each.state == "ready" and not each.num_guests)
            if entry.cancelled.is_set():
                raise EngineClosedError(f"loading {entry.spec.name} was given up")
            if victim is not None and not is_one_going and entry.num_waiting:
                self._stop(victim)
            elif not entry.num_waiting or not await self._changes.before(deadline):
                raise BusyError(
                    f"all {len(others)} loaded models are in use, and there is no room for {entry.spec.name}",
                    _BUSY_RETRY_S,
                )

    def _placed(self) -> list[Entry]:
        return [entry for entry in self._entries.values() if entry.has_place]

    def _ready(self) -> list[Entry]:
        return [entry for entry in self._entries.values() if entry.state == "ready"]

    def _unload_expired(self) -> None:
        for entry in pool.expired(self._ready(), self._clock()):
            if entry.num_guests:
                entry.last_used, entry.keep_alive_s = self._clock(), max(entry.keep_alive_s, _GUEST_CHECK_S)
            else:
                self._stop(entry)

    async def _watch(self) -> None:
        while not self._is_closed:
            self._unload_expired()
            await self._changes.before(pool.next_expiry(self._ready()))

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
