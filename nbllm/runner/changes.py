"""Waiting on an event loop: for a change, for a task in time, for a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

_T = TypeVar("_T")


class Changes:
    """What tasks wait for that have to look again when anything has changed.

    Args:
        clock: seconds, and `sleep`: by that clock.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._clock, self._sleep = clock, sleep
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Wake everybody who waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def before(self, deadline: float | None) -> bool:
        """Wait for the next change; False when it does not come in time."""
        change = asyncio.ensure_future(self._changed.wait())
        try:
            return await self.in_time(change, deadline)
        finally:
            change.cancel()

    async def in_time(self, work: asyncio.Future[Any], deadline: float | None) -> bool:
        """Wait for the work, which goes on if it is not done in time or the waiter is cancelled."""
        if deadline is None:
            await asyncio.wait({work})
            return True
        alarm = asyncio.ensure_future(self._sleep(max(0.0, deadline - self._clock())))
        try:
            await asyncio.wait({work, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
        return work.done()


async def in_thread(act: Callable[[], _T], name: str) -> _T:
    """Run it in a thread of its own: it may take minutes, and the default executor serves the whole server."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def deliver(settle: Callable[[], None]) -> None:
        if not future.done():
            settle()

    def run() -> None:
        try:
            result = act()
            settle = partial(future.set_result, result)
        except Exception as exc:  # noqa: BLE001  # it goes to whoever waits
            settle = partial(future.set_exception, exc)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(deliver, settle)

    threading.Thread(target=run, name=f"nbllm-{name}", daemon=True).start()
    return await future
