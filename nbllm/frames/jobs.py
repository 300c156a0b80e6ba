"""Work that outlives the cell which began it."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from nbllm.core.flag import Flag
from nbllm.errors import in_one_line
from nbllm.frames.asks import Progress, RunOptions
from nbllm.frames.durations import duration_text

_T = TypeVar("_T")
_logger = logging.getLogger("nbllm")
_LAST_WORDS_S = 5.0
"""Waits are cut into such pieces, so that an interrupt gets through on every platform."""


class JobProgress(NamedTuple):
    """How many rows are finished, of how many."""

    done: int
    total: int


class Job(Generic[_T]):
    """A call that runs in a thread of its own. An interrupt of the cell does not end it; the end of the process does.

    `await job` is `job.result()` that leaves the event loop free.

    Args:
        work: is called with a function that reports progress, and an event that asks it to end early.
        total: rows, if that is known already.
    """

    def __init__(self, work: Callable[[Progress, Flag], _T], total: int = 0) -> None:
        self._stop, self._ended = Flag(), Flag()
        self._finished = Future[None]()  # for who awaits it: `result`, which may be interrupted, has the flag
        self._finished.set_running_or_notify_cancel()  # or whoever stops awaiting it would cancel it
        self._progress = JobProgress(0, total)
        self._values: list[_T] = []
        self._error: BaseException | None = None
        self._started = time.monotonic()
        self._took_s = 0.0
        _jobs.add(self)
        _watch_for_the_end()
        threading.Thread(target=self._run, args=(work,), name="nbllm-job", daemon=True).start()

    def __repr__(self) -> str:
        return f"<nbllm.Job {self._state()}>"

    def __await__(self) -> Generator[Any, None, _T]:
        """As `result`; cancelling whoever awaits it ends the wait only."""
        return self._awaited().__await__()

    @property
    def done(self) -> bool:
        """Whether it has ended, with a result, an error, or because it was cancelled."""
        return self._ended.is_set()

    @property
    def progress(self) -> JobProgress:
        return self._progress

    def cancel(self) -> None:
        """Ask it to end. What it has finished is in the cache; `result` says how it ended."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, and say whether it has come."""
        return self._ended.wait(timeout)

    def result(self, timeout: float | None = None) -> _T:
        """Wait for the end, and give what the call would have given. An interrupt ends the wait only.

        Args:
            timeout: most seconds to wait; None waits for ever.

        Raises:
            TimeoutError: it runs on.
            concurrent.futures.CancelledError: it was cancelled.
        """
        try:
            if not self.wait(timeout):
                raise TimeoutError(f"{self._state()}; it runs on")
        except KeyboardInterrupt as interrupt:
            in_one_line(interrupt, "the wait was ended, and the job runs on; job.cancel() ends it")
            raise
        except TimeoutError as error:
            in_one_line(error, str(error))
            raise
        if self._error is not None:
            raise self._error
        return self._values[0]

    def told_at_the_end(self) -> str:
        """What is to be said of it when the process ends with it; "" when nothing of it is lost."""
        if self._error is None and self.done and self._progress.done == self._progress.total:
            return ""
        return str(self._error) if isinstance(self._error, CancelledError) else self._state()

    async def _awaited(self) -> _T:
        import asyncio

        await asyncio.wrap_future(self._finished)
        return self.result()

    def _run(self, work: Callable[[Progress, Flag], _T]) -> None:
        try:
            self._values.append(work(self._report, self._stop))
        except BaseException as error:  # noqa: BLE001  # `result` raises it, where somebody looks
            self._error = error
        finally:
            self._took_s = time.monotonic() - self._started
            self._ended.set()
            self._finished.set_result(None)

    def _report(self, done: int, total: int) -> None:
        self._progress = JobProgress(done, total)

    def _state(self) -> str:
        done, total = self._progress
        rows = f"{done:,}/{total:,} done"
        if not self.done:
            return f"{rows}, being cancelled" if self._stop.is_set() else rows + self._left(done, total)
        if isinstance(self._error, CancelledError):
            return f"cancelled, {rows}"
        if self._error is not None:
            return f"failed, {rows}: {type(self._error).__name__}: {self._error}"
        return f"{rows} in {duration_text(self._took_s)}"

    def _left(self, done: int, total: int) -> str:
        if not 0 < done < total:
            return ""
        return f", about {duration_text((time.monotonic() - self._started) * (total - done) / done)} left"


_jobs: weakref.WeakSet[Job[Any]] = weakref.WeakSet()
_watcher: threading.Thread | None = None


def _watch_for_the_end() -> None:
    """Only a thread that the interpreter waits for sees its end before `atexit` closes the models under the jobs."""
    global _watcher
    if _watcher is None or not _watcher.is_alive():  # as in a forked child; a second one would do no harm
        _watcher = threading.Thread(target=_end_with_the_process, name="nbllm-jobs-end", daemon=False)
        _watcher.start()


def _end_with_the_process() -> None:
    """A thread that tokenizes while C++ tears its globals down would abort the process."""
    threading.main_thread().join()
    running = [job for job in _jobs if not job.done]
    for job in running:
        job.cancel()
    deadline = time.monotonic() + _LAST_WORDS_S
    for job in running:
        job.wait(max(0.0, deadline - time.monotonic()))
        how_far = job.told_at_the_end()
        if how_far:
            _logger.warning("a job was ended with its process: %s", how_far)


def in_background(options: RunOptions, work: Callable[[RunOptions, Flag], _T], total: int = 0) -> Job[_T]:
    """A job for a call that runs a table.

    Args:
        work: what the call would have done; it is given the options and the event for `run`, with which nothing is
            shown and the job is told of the progress.
    """

    def quietly(report: Progress, stop: Flag) -> _T:
        return work(replace(options, background=False, progress=_both(report, options.progress)), stop)

    return Job(quietly, total)


def _both(report: Progress, other: bool | Progress | None) -> Progress:
    if not callable(other):
        return report

    def both(done: int, total: int) -> None:
        report(done, total)
        other(done, total)

    return both
