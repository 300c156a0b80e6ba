"""How many requests go out at a time, and which of those that wait goes next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nbllm.core import Priority

_RANKS: dict[Priority, int] = {"interactive": 0, "batch": 1}


class Slots:
    """A semaphore whose waiters go by priority, then in order. For one event loop."""

    def __init__(self, num_slots: int) -> None:
        self._free = num_slots
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @asynccontextmanager
    async def taken(self, priority: Priority) -> AsyncIterator[None]:
        await self._take(priority)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, priority: Priority) -> None:
        if self._free:  # whoever waits was given a slot when it came free
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (_RANKS[priority], next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # both at once: the slot is not wanted any more
                self._give_back()
            raise

    def _give_back(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
