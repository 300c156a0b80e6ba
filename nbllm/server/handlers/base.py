"""What every route does alike: reads a body, finds the model, answers in its place in the queue, logs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.prometheus.log_functions import prometheus_log_method
from tornado import web

from nbllm.core import Chunk, Priority
from nbllm.errors import EngineError, NbllmError
from nbllm.server import metrics
from nbllm.server.accesslog import access_line
from nbllm.server.apierror import ApiError
from nbllm.server.flight import Flight
from nbllm.server.handlers.entrance import Entrance
from nbllm.server.naming import Target
from nbllm.server.router import Wish

CLIENT_GONE = 499
_FEW_TEXTS = 8
_Call = TypeVar("_Call")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@web.stream_request_body  # so that a refusal goes out before a large body comes in
class OpenAIHandler(Entrance):
    """The base of all routes under `/v1`, and of those that speak otherwise.

    Attributes:
        route: its name in the counters.
        model, user, usage: what is known of the request by the time that it is logged.
        outcome: the status that the log and the counters have; None is the one that was sent. A stream that failed
            after its headers were sent has another.
    """

    route = "unknown"

    def initialize(self) -> None:
        super().initialize()
        self.started = monotonic()
        self.model: str | None = None
        self.user: str | None = None
        self.usage: dict[str, Any] = {}
        self.outcome: int | None = None
        self._num_generated = 0
        self._received = bytearray()
        self._work: asyncio.Task[None] | None = None

    # ---- what it gets

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if len(self._received) <= self.max_body_bytes:
            self._received += chunk  # what comes beyond is read and dropped: to raise here would drop the connection
        return None

    def body(self) -> bytes:
        """Raises ApiError when it is too large."""
        if len(self._received) > self.max_body_bytes:
            raise self.too_large()
        return bytes(self._received)

    # ---- what it does

    async def target_of(self, name: str, *, user: str | None = None, unknown: Sequence[str] = ()) -> Target:
        """What a model's name stands for, if the key opens it; the log gets to know what was asked."""
        self.user = user
        self.note_unknown(unknown)
        target = await self.resolved(name)
        self.check_model(name, target.name)
        self.model = target.name
        return target

    def note_unknown(self, keys: Sequence[str]) -> None:
        if keys:
            self.log.info("nbllm: keys that mean nothing here: %s", ", ".join(keys))

    async def resolved(self, name: str) -> Target:
        """Raises ModelNotFoundError and the router's other errors about names."""
        return await self.service.router.target(name)

    async def opened(self) -> dict[str, Target]:
        """The models that the key may ask for, by each of their names."""
        found = await self.service.router.listed()
        for name in (self.access.key and self.access.key.models) or ():
            if name not in found:  # a name that is caught by "*", or "default"
                with suppress(NbllmError):
                    found[name] = await self.service.router.target(name)
        return {name: target for name, target in found.items() if self.access.may_use(name, target.name)}

    def wish(self, keep_alive_s: float | None = None) -> Wish:
        return Wish(may_use_kernels="kernel" in self.access.scopes, keep_alive_s=keep_alive_s)

    async def working(self, answer: Callable[[_Call], Awaitable[None]], call: _Call) -> None:
        """Answer a request in its place in the queue, and stop when the client goes away."""
        if self.service.is_full:
            raise self.too_busy()
        self._call = call
        with self.take_slot(), self.service.place():
            self._work = asyncio.ensure_future(answer(call))
            try:
                await self._work
            except asyncio.CancelledError:
                if not self._is_gone:
                    raise
                self.outcome = CLIENT_GONE
            except NbllmError as error:
                raise self.failure(error) from error

    def too_busy(self) -> ApiError:
        return ApiError(429, "The queue is full; ask again in a moment", code="rate_limit_exceeded", retry_after_s=2)

    _call: object = None

    def failure(self, error: NbllmError) -> ApiError:
        """What the client is told of an error, by the names of its own request."""
        return ApiError.of(error, self._call)

    _is_gone = False

    def on_connection_close(self) -> None:
        self._is_gone = True
        if self._work is not None:
            self._work.cancel()
        super().on_connection_close()

    @allow_unauthenticated
    def _wrong_method(self, *_: object) -> None:
        raise ApiError(
            405,
            f"{self.request.method} is not for {self.request.path[:200]}; use {' or '.join(self.allowed)}",
            code="method_not_allowed",
        )

    get: Any = _wrong_method  # Any: each route's own takes what its path has
    post: Any = _wrong_method
    put: Any = _wrong_method
    patch: Any = _wrong_method
    delete: Any = _wrong_method

    @allow_unauthenticated
    def head(self, *arguments: Any) -> Any:
        """As GET; Tornado leaves the body out."""
        return self.get(*arguments)

    @property
    def allowed(self) -> list[str]:
        """The methods that the route has."""
        return [name for name in _METHODS if getattr(type(self), name.lower()) is not OpenAIHandler._wrong_method]

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        if status_code == 405:
            self.set_header("Allow", ", ".join(self.allowed))
        super().write_error(status_code, **kwargs)

    # ---- what is logged

    def on_finish(self) -> None:
        seconds = monotonic() - self.started
        status = self.outcome or self.get_status()
        metrics.REQUESTS.labels(self.route, str(status)).inc()
        metrics.DURATION_S.labels(self.route).observe(seconds)
        line = access_line(
            key=self.access.name,
            method=self.request.method or "",
            path=self.request.path,
            status=status,
            duration_s=seconds,
            user=self.user,
            model=self.model,
            prompt_tokens=self.usage.get("prompt_tokens") or None,  # of one that was broken off it is not known
            completion_tokens=self.usage.get("completion_tokens"),
        )
        (self.log.info if status < 500 else self.log.warning)("%s", line)
        super().on_finish()

    def _log(self) -> None:
        """Tornado's place for a line of its own: there is ours already, so Jupyter only counts."""
        prometheus_log_method(self)  # type: ignore[no-untyped-call]

    def generated(self, chunk: Chunk) -> Chunk:
        """Count what an answer has so far, for one that does not come to its end; gives back the chunk."""
        self._num_generated += len(chunk.tokens)
        return chunk

    @contextmanager
    def counting(self, usage: Callable[[], dict[str, Any]]) -> Iterator[None]:
        """However what is inside ends, the answer's `usage` is counted, before the request is logged."""
        try:
            yield
        finally:
            known = usage()
            if known["total_tokens"] or self._num_generated:
                self.count({**known, "completion_tokens": max(known["completion_tokens"], self._num_generated)})

    def count(self, usage: dict[str, Any]) -> None:
        """Remember what the answer used (OpenAI's `usage`), for the log and for the counters."""
        self.usage = usage
        name = self.model or ""
        metrics.PROMPT_TOKENS.labels(name).inc(usage["prompt_tokens"])
        metrics.CACHED_TOKENS.labels(name).inc(usage.get("prompt_tokens_details", {}).get("cached_tokens", 0))
        metrics.COMPLETION_TOKENS.labels(name).inc(usage.get("completion_tokens", 0))

    def drop_connection(self) -> None:
        """End the connection without another word."""
        self.outcome = CLIENT_GONE
        self.request.connection.stream.close()  # type: ignore[union-attr]  # HTTP/1, the only kind Tornado serves


def priority(num_texts: int) -> Priority:
    """A list of texts is work for a batch: a person who asks meanwhile goes first."""
    return "interactive" if num_texts <= _FEW_TEXTS else "batch"


def finished(chunk: Chunk) -> Chunk:
    """The chunk, if it is a good end. Raises what went wrong otherwise."""
    if chunk.error is not None:
        raise chunk.error
    if chunk.finish_reason != "stop":
        raise EngineError(f"the request ended early: {chunk.finish_reason}")
    return chunk


async def gathered(flight: Flight, num_texts: int) -> tuple[list[Any], int]:
    """The vectors of texts in their order, and how many tokens the texts are. Raises as `finished` does."""
    vectors: list[Any] = [None] * num_texts
    num_tokens = 0
    async with flight:
        async for chunk in flight:
            last = finished(chunk)
            vectors[last.index] = last.embedding
            num_tokens += last.usage.prompt_tokens if last.usage else 0
    return vectors, num_tokens
