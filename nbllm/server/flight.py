"""One request with an engine, seen from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nbllm.core import Chunk, Request
from nbllm.engine.interface import num_answers, submitted
from nbllm.errors import EngineDeadError
from nbllm.runner.client import RemoteEngine

if TYPE_CHECKING:
    from nbllm.engine.interface import Engine, Ticket


class FrozenError(EngineDeadError):
    """The process that has the model gave no sign of life; another may answer."""


class Flight:
    """The chunks of one request, to be iterated over once. Use it as an async context manager: leaving it cancels."""

    def __init__(self, request: Request) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Chunk] = asyncio.Queue()
        self._remaining = num_answers(request)
        self._ticket: Ticket | None = None
        self._held = contextlib.AsyncExitStack()

    @classmethod
    async def begin(cls, engine: Engine, request: Request, *, sign_within_s: float | None = None) -> Flight:
        """Submit, and wait until the engine has taken the request in.

        Args:
            sign_within_s: how soon the other process must have received it.

        Raises:
            FrozenError: it gave no sign.
            NbllmError: what the engine says against the request, or of its own end.
        """
        flight = cls(request)
        if isinstance(engine, RemoteEngine):
            await flight._begin_remote(engine, request, sign_within_s)
        else:
            await flight._begin_local(engine, request)
        return flight

    def holding(self, held: contextlib.AsyncExitStack) -> Flight:
        """Keep what the engine needs until the end."""
        self._held = held
        return self

    async def __aenter__(self) -> Flight:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Flight:
        return self

    async def __anext__(self) -> Chunk:
        if not self._remaining:
            raise StopAsyncIteration
        chunk = await self._inbox.get()
        self._remaining -= chunk.finish_reason is not None
        return chunk

    def ready(self) -> list[Chunk]:
        """The chunks that have come already, without waiting."""
        chunks = []
        while not self._inbox.empty():
            chunk = self._inbox.get_nowait()
            self._remaining -= chunk.finish_reason is not None
            chunks.append(chunk)
        return chunks

    async def close(self) -> None:
        """Cancel what still runs, and let go of the engine. Twice is harmless."""
        if self._ticket is not None:
            self._ticket.cancel()
        await self._held.aclose()

    # ---- inside

    async def _begin_remote(self, engine: RemoteEngine, request: Request, sign_within_s: float | None) -> None:
        replied: asyncio.Future[None] = self._loop.create_future()
        received: asyncio.Future[None] = self._loop.create_future()
        self._ticket = engine.begin(
            request,
            self._put,
            partial(self._later, _settle, replied),
            partial(self._later, _settle, received, None),
        )
        try:
            if sign_within_s is not None:
                await _any_of(received, replied, within_s=sign_within_s)
            await replied
        except BaseException:
            self._ticket.cancel()
            raise
        finally:
            _drop(replied)

    async def _begin_local(self, engine: Engine, request: Request) -> None:
        self._ticket = await submitted(self._loop.run_in_executor(None, engine.submit, request, self._put))

    def _put(self, chunk: Chunk) -> None:
        self._later(self._inbox.put_nowait, chunk)

    def _later(self, call: Callable[..., object], *arguments: Any) -> None:
        """From the engine's thread to the loop; a loop that is closed has nobody left to tell."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


async def _any_of(received: asyncio.Future[None], replied: asyncio.Future[None], *, within_s: float) -> None:
    done, _ = await asyncio.wait([received, replied], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        raise FrozenError(f"the kernel that has the model gave no sign for {within_s:g} s")


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _drop(future: asyncio.Future[None]) -> None:
    """Nobody waits for it any more: neither the error that it has nor the one that comes later is news."""
    if not future.cancel() and not future.cancelled():
        future.exception()
