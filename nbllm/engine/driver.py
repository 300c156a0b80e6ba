"""The process's one decode thread. It steps every lane that has work, in turn.

Two threads that each drive an engine fight for the same cores: half the speed together. One thread that drives both
loses nothing, and being alone it can also say to the machine how many cores it is using.
"""

from __future__ import annotations

import _thread
import atexit
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nbllm.core.flag import Flag
from nbllm.engine.cores import CoreLease
from nbllm.engine.machine import busy_elsewhere, usable_cores
from nbllm.engine.threads import ThreadTuner

_RENEW_S = 0.1
_REREAD_CORES_S = 1.0
_LEAST_HOLD_S = 0.3
_SWITCH_INTERVAL_S = 0.0005
"""How long a busy Python thread may keep the GIL from the decode thread. Python's default of 5 ms is a whole step."""
_LOOKS, _LOOK_S = 3, 0.001
_LOOKED_S = 0.1
"""How long a look at what else runs on the machine holds."""
_JOIN_S = 5.0


class StepLike(Protocol):
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def is_decode(self) -> bool: ...


class Steppable(Protocol):
    """A lane, as far as the driver knows it."""

    @property
    def has_work(self) -> bool: ...
    def step(self, threads: int, prefill_threads: Callable[[], int]) -> StepLike | None: ...
    def close(self, error: BaseException | None = None) -> None: ...
    def die(self, error: Exception) -> None: ...
    def stop_step(self) -> None: ...


class Driver:
    """Steps lanes in a thread that starts with the first of them.

    Args:
        cores_file: the machine-wide lease table, None for its default place.
    """

    def __init__(self, cores_file: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()  # no Condition: see nbllm.core.flag
        self._lanes: list[Steppable] = []
        self._closing: list[tuple[Steppable, Flag]] = []
        self._stopped = False
        self._only_one = threading.Lock()
        self._has_begun = False
        self._ident: int | None = None
        self._ended = Flag()
        self._pid = os.getpid()
        self._cores = _Cores(cores_file)
        self._tuners: dict[Steppable, ThreadTuner] = {}
        self._caps: dict[Steppable, int] = {}
        self._rested: set[Steppable] = set()

    @property
    def threads(self) -> int:
        """Decode threads of the last step."""
        return self._cores.threads

    def attach(self, lane: Steppable, max_threads: int | None = None) -> None:
        """Step the lane from now on, with at most `max_threads`; None for all cores that the process may use."""
        with self._lock:
            self._caps[lane] = max_threads or usable_cores()
            self._rested.add(lane)
            self._lanes.append(lane)
        if self._ident is None:  # no Thread, whose start an interrupt can break for good; a second one ends at once
            self._has_begun = True
            _thread.start_new_thread(self._run, ())

    def wake(self) -> None:
        """Something may have work. Safe on any thread."""
        if self._wakes.empty():
            self._wakes.put(None)

    def detach(self, lane: Steppable) -> None:
        """Close the lane on the decode thread and step it no more; returns when that is done."""
        done = Flag()
        with self._lock:
            if lane not in self._lanes:
                return
            self._closing.append((lane, done))
        self.wake()
        lane.stop_step()
        if threading.get_ident() == self._ident:
            self._close_detached()
        elif os.getpid() == self._pid:
            done.wait(_JOIN_S)

    def stop(self) -> None:
        """Close every lane and end the thread; what is being evaluated is aborted."""
        self._stopped = True
        self.wake()
        for lane in list(self._lanes):
            lane.stop_step()
        if self._has_begun and os.getpid() == self._pid:
            self._ended.wait(_JOIN_S)

    # ---- the decode thread

    def _run(self) -> None:
        if not self._only_one.acquire(blocking=False):
            return
        self._ident = threading.get_ident()
        threading.current_thread().name = "nbllm-decode"
        try:
            self._drive()
        finally:
            self._ended.set()

    def _drive(self) -> None:
        interval = _SwitchInterval()
        while not self._stopped:
            self._close_detached()
            busy = self._busy()
            if not busy:
                self._cores.release()
                interval.restore()
                self._rested.update(self._lanes)
                self._wakes.get()
                continue
            interval.shorten()
            for lane in busy:
                if lane in self._lanes:
                    self._step(lane)
        for lane in self._lanes:
            lane.close()
        self._cores.close()
        interval.restore()

    def _busy(self) -> list[Steppable]:
        with self._lock:
            lanes = list(self._lanes)
        return [lane for lane in lanes if lane.has_work]

    def _step(self, lane: Steppable) -> None:
        cap = self._caps[lane]
        granted = min(cap, self._cores.granted)
        tuner = self._tuners.setdefault(lane, ThreadTuner(granted))
        tuner.limit(granted)
        rested = lane in self._rested  # who else is busy by now shows after some slow steps, or at once to who looks
        threads = self._cores.free(tuner.settled) if rested else tuner.threads
        try:
            report = lane.step(threads, lambda: self._cores.free(tuner.settled))
        except Exception as error:  # noqa: BLE001  # the thread serves other lanes too, and everybody waits for answers from it
            lane.die(error)
            self._forget(lane)
            return
        if report is not None:
            if report.is_decode:  # prefill comes in too many shapes to be compared
                if rested:
                    self._rested.discard(lane)
                    tuner.begin(threads)
                tuner.observe(threads, report.shape, report.duration_s)
            self._cores.renew(report.duration_s, threads, cap)

    def _close_detached(self) -> None:
        with self._lock:
            closing, self._closing = self._closing, []
        for lane, done in closing:
            lane.close()
            self._forget(lane)
            done.set()

    def _forget(self, lane: Steppable) -> None:
        with self._lock:
            if lane in self._lanes:
                self._lanes.remove(lane)
        self._tuners.pop(lane, None)
        self._caps.pop(lane, None)
        self._rested.discard(lane)


class _Cores:
    """The cores that this process may use now: what the machine allows, and what the lease grants of it."""

    def __init__(self, cores_file: Path | None) -> None:
        self._lease = CoreLease(cores_file)
        self._usable = usable_cores()
        self.granted = self._usable
        self.threads = self._usable
        self._renew_at = self._reread_at = self._free_until = 0.0
        self._free = self._usable

    def renew(self, step_s: float, threads: int, cap: int) -> None:
        """Called after a step of a lane that may use `cap` cores; most calls do nothing."""
        self.threads = threads
        now = time.monotonic()
        if now < self._renew_at:
            return
        if now >= self._reread_at:
            self._usable = usable_cores()
            self._reread_at = now + _REREAD_CORES_S
        self._renew_at = now + _RENEW_S
        self.granted = self._lease.renew(min(self._usable, cap), max(_LEAST_HOLD_S, 3 * step_s))

    def free(self, wanted: int) -> int:
        """At most `wanted` of the machine's cores that nothing else keeps busy now, and at least 1.

        One busy core makes a prompt take ten times as long with a thread too many, before any step could tell so.
        """
        if wanted == 1 or time.monotonic() < self._free_until:
            return min(wanted, self._free)
        cpus = os.cpu_count() or 1
        busy = busy_elsewhere()
        for _ in range(_LOOKS if busy > cpus - wanted else 0):  # many a thread runs for a moment only
            time.sleep(_LOOK_S)
            busy = min(busy, busy_elsewhere())
        self._free, self._free_until = max(1, cpus - busy), time.monotonic() + _LOOKED_S
        return min(wanted, self._free)

    def release(self) -> None:
        if self._renew_at:
            self._lease.release()
            self._renew_at = 0.0

    def close(self) -> None:
        self._lease.close()


class _SwitchInterval:
    """Python's thread switch interval, short while the engine decodes and the user's own in between."""

    def __init__(self) -> None:
        self._theirs: float | None = None

    def shorten(self) -> None:
        current = sys.getswitchinterval()
        if self._theirs is None and current > _SWITCH_INTERVAL_S:
            self._theirs = current
            sys.setswitchinterval(_SWITCH_INTERVAL_S)

    def restore(self) -> None:
        if self._theirs is not None:
            sys.setswitchinterval(self._theirs)
            self._theirs = None


_lock = threading.Lock()
_drivers: list[Driver] = []


def shared_driver(cores_file: Path | None = None) -> Driver:
    """This process's driver, made at the first call; the place of the table counts only then."""
    with _lock:
        if not _drivers:
            _drivers.append(Driver(cores_file))
            atexit.register(_stop_all)
        return _drivers[0]


def _stop_all() -> None:
    """Before the interpreter goes: a thread inside llama.cpp while C++ tears its globals down would crash."""
    for driver in _drivers:
        driver.stop()


def _forget_all() -> None:
    _drivers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
