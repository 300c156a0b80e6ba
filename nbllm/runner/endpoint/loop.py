"""An event loop in a thread of its own: a request can be cancelled in it wherever it waits, for headers too."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from nbllm.errors import EngineClosedError

CLOSED = "the connection was closed; connect again with nbllm.connect"
_Value = TypeVar("_Value")


class LoopThread:
    """Starts with the first use. Safe on any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._is_closed = False

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, _Value]) -> Future[_Value]:
        """Begin `work` in the loop. Raises EngineClosedError after `close`, and in a forked child."""
        try:
            if os.getpid() != self._pid:  # before the lock, which a thread that is not here may have held
                raise EngineClosedError(CLOSED)
            with self._lock:  # `close` comes wholly before or wholly after
                return asyncio.run_coroutine_threadsafe(work, self._running())
        except BaseException:
            work.close()
            raise

    def call(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        """Do `work` and wait for it; an interrupt gets through on every platform, and ends it."""
        future = self.run(work)
        try:
            while True:
                try:
                    return future.result(timeout=0.5)
                except TimeoutError:
                    if future.done():  # meanwhile, or with a TimeoutError of its own
                        return future.result()
        except CancelledError:
            raise EngineClosedError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Do `last` if anything ever ran, and end the thread. Twice is harmless."""
        if os.getpid() != self._pid:
            last.close()
            return
        with self._lock:
            loop, self._is_closed = (None if self._is_closed else self._loop), True
        if loop is None or self._thread is None:
            last.close()
            return
        ended = asyncio.run_coroutine_threadsafe(last, loop)
        ended.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
        if not self.is_current:
            self._thread.join()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._is_closed:
            raise EngineClosedError(CLOSED)
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
            self._thread.start()
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
