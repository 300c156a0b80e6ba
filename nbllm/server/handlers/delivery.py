"""Sends a stream to a client that may be slow, or gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from tornado.iostream import StreamClosedError

from nbllm.errors import NbllmError
from nbllm.server.handlers.base import CLIENT_GONE
from nbllm.server.metrics import FIRST_TOKEN_S
from nbllm.wire import sse
from nbllm.wire.openai.errors import error_event

if TYPE_CHECKING:
    from nbllm.server.apierror import ApiError
    from nbllm.server.handlers.base import OpenAIHandler


def _error_event(error: ApiError) -> bytes:
    told = error.body["error"]
    return error_event(error.status_code, told["message"], param=told["param"], code=told["code"])


@dataclass(frozen=True, slots=True)
class Framing:
    """How a stream is written.

    Attributes:
        ping: what says nothing; b"" where the format has no such thing.
        error: the last words of a stream that failed after its headers were sent.
        has_tokens: whether what is written is an answer, whose beginning is timed.
    """

    content_type: str
    ping: bytes
    error: Callable[[ApiError], bytes]
    has_tokens: bool = True


EVENTS = Framing("text/event-stream; charset=utf-8", sse.PING, _error_event)


class Delivery:
    """One stream. Its headers are held back until there is something to say, so that an early error has its
    own status; a comment is sent whenever nothing was said for a while, which keeps proxies from closing it."""

    def __init__(self, handler: OpenAIHandler, framing: Framing = EVENTS) -> None:
        self._handler, self._framing = handler, framing
        self._limits = handler.service.limits
        self._has_begun, self._has_tokens = False, not framing.has_tokens

    async def send(self, pieces: AsyncGenerator[bytes]) -> None:
        """Write the pieces as they come.

        Raises:
            NbllmError: there was an error before anything was sent.
        """
        try:
            await self._send(pieces)
        except StreamClosedError:
            self._handler.outcome = CLIENT_GONE
        except NbllmError as error:
            if not self._has_begun:
                raise
            await self._send_error(self._handler.failure(error))

    async def _send(self, pieces: AsyncGenerator[bytes]) -> None:
        patience_s = self._limits.hold_s if self._framing.ping else None
        following = _next(pieces)
        try:
            while True:
                done, _ = await asyncio.wait((following,), timeout=patience_s)
                patience_s = self._limits.ping_s if self._framing.ping else None
                if not done:
                    await self._write(self._framing.ping)
                    continue
                try:
                    piece = following.result()
                except StopAsyncIteration:
                    return
                if not self._has_tokens:
                    self._has_tokens = True
                    FIRST_TOKEN_S.observe(monotonic() - self._handler.started)
                await self._write(piece)
                following = _next(pieces)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, NbllmError):
                await following
            await pieces.aclose()

    async def _write(self, data: bytes) -> None:
        handler = self._handler
        if not self._has_begun:
            self._has_begun = True
            handler.set_header("Content-Type", self._framing.content_type)
            handler.set_header("Cache-Control", "no-cache")
            handler.set_header("X-Accel-Buffering", "no")
        handler.write(data)
        try:
            await asyncio.wait_for(handler.flush(), self._limits.stall_s)
        except TimeoutError:  # the client stopped reading: nothing of its answer is computed any further
            handler.log.info("nbllm: a client left its stream unread for %g s, and was let go", self._limits.stall_s)
            handler.drop_connection()
            raise StreamClosedError from None

    async def _send_error(self, error: ApiError) -> None:
        self._handler.outcome = error.status_code
        with contextlib.suppress(StreamClosedError):
            await self._write(self._framing.error(error))


def _next(pieces: AsyncGenerator[bytes]) -> asyncio.Future[bytes]:
    return asyncio.ensure_future(anext(pieces))
