"""The pulls that clients wait for: one of each model, however many ask for it."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial
from time import monotonic

from nbllm.config import Config
from nbllm.errors import ModelNotFoundError
from nbllm.runner.changes import in_thread
from nbllm.store.foreign import total_memory
from nbllm.store.names import resolve
from nbllm.store.presets import shelf
from nbllm.store.pulling import OnProgress, PullProgress, pull

_EVERY_S = 0.1
"""Between two reports of one file: its bytes come in thousands of pieces."""


class Pulls:
    """To be used from the event loop only. A pull that nobody waits for any more is ended, and its part is kept.

    Args:
        config: read afresh for each pull.
    """

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._works: dict[str, _Work] = {}

    async def follow(self, name: str) -> AsyncGenerator[PullProgress]:
        """How far the pull of the model is, until it is here; close it to have it no longer.

        Raises:
            ParameterError, ModelError: what `pulling.pull` does.
        """
        work = self._works.get(name)
        if work is None or work.task.done():
            work = self._works[name] = _Work(partial(self._pulled, name))
        follower = work.followed()
        try:
            while not (work.task.done() and not follower.pending):
                await follower.news.wait()
                for progress in follower.taken():
                    yield progress
        finally:
            work.left_by(follower)
            if not work.followers and self._works.get(name) is work:
                del self._works[name]
        if (error := work.task.exception()) is not None:
            raise copy.copy(error) from error.__cause__  # each follower needs a traceback of its own

    def close(self) -> None:
        for work in self._works.values():
            work.end()

    def _pulled(self, name: str, report: OnProgress) -> None:
        config = self._config()
        if not _is_here(name, config):
            pull(config.unaliased(name), config=config, memory_bytes=total_memory(), on_progress=report)


def _is_here(name: str, config: Config) -> bool:
    """Whether the settings say what the name means, and that is there: no other model may come in its place."""
    meant = config.unaliased(name)
    if meant in config.endpoints or meant == name:
        return meant in config.endpoints
    with suppress(ModelNotFoundError):
        return shelf.find(meant, config) is not None or resolve(meant, config).exists()
    return False


class _UnwantedError(Exception):
    """Nobody waits for the model."""


class _Work:
    """A pull in its thread.

    Args:
        act: pulls; it is given what to report to, in its thread.
    """

    def __init__(self, act: Callable[[OnProgress], None]) -> None:
        self.followers: set[_Follower] = set()
        self._loop = asyncio.get_running_loop()
        self._last: PullProgress | None = None
        self._reported: tuple[str, float] = ("", 0.0)
        self._is_unwanted = threading.Event()
        self.task = asyncio.ensure_future(in_thread(partial(act, self._report), "pull"))
        self.task.add_done_callback(self._ended)

    def followed(self) -> _Follower:
        follower = _Follower()
        self.followers.add(follower)
        if self._last is not None:
            follower.put(self._last)
        return follower

    def left_by(self, follower: _Follower) -> None:
        self.followers.discard(follower)
        if not self.followers:
            self._is_unwanted.set()

    def end(self) -> None:
        self._is_unwanted.set()
        self.task.cancel()

    def _report(self, progress: PullProgress) -> None:
        """In the thread."""
        if self._is_unwanted.is_set():
            raise _UnwantedError
        file, then = self._reported
        now = monotonic()
        is_between = progress.status == "downloading" and progress.done < progress.total
        if is_between and file == progress.file and now < then + _EVERY_S:
            return
        self._reported = (progress.file, now)
        self._loop.call_soon_threadsafe(self._tell, progress)

    def _tell(self, progress: PullProgress) -> None:
        self._last = progress
        for follower in self.followers:
            follower.put(progress)

    def _ended(self, task: asyncio.Task[None]) -> None:
        with suppress(asyncio.CancelledError):
            task.exception()  # where nobody follows it any more, nobody else asks for it
        for follower in self.followers:
            follower.news.set()


class _Follower:
    """What one client has not been told yet: of each stretch only the latest."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.pending: list[PullProgress] = []

    def put(self, progress: PullProgress) -> None:
        if self.pending and (self.pending[-1].status, self.pending[-1].file) == (progress.status, progress.file):
            self.pending.pop()
        self.pending.append(progress)
        self.news.set()

    def taken(self) -> list[PullProgress]:
        taken, self.pending = self.pending, []
        self.news.clear()
        return taken
