"""An engine of another process, used as if it were here."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nbllm.core import Chunk, EngineInfo, GenerateRequest, RenderedPrompt, Request
from nbllm.core.flag import Flag
from nbllm.engine.interface import EngineStats, OnChunk, num_answers
from nbllm.errors import EngineClosedError, EngineDeadError, EngineError
from nbllm.runner import messages
from nbllm.runner.channel import Channel
from nbllm.runner.listener import Address, dial

CONNECT_TIMEOUT_S = 5.0
_LOST = "the process that ran the model ended; send the request again"
_CLOSED = "the connection to the model was closed; load or attach it again"
_T = TypeVar("_T")

OnReply = Callable[[BaseException | None], None]
"""Called once: with None when the request was taken in, else with the reason why not."""


@dataclass(eq=False, slots=True)
class RemoteTicket:
    """A request that was sent."""

    engine: RemoteEngine
    id: int
    on_chunk: OnChunk
    on_reply: OnReply
    on_received: Callable[[], None] | None
    open_answers: set[int]
    is_answered: bool = False

    @property
    def is_done(self) -> bool:
        return not self.open_answers

    def cancel(self) -> None:
        if self.open_answers:
            self.engine._cancel(self)


@dataclass(eq=False, slots=True)
class _Pending:
    """A call whose result has not come yet."""

    is_received: Flag = field(default_factory=Flag)
    is_here: Flag = field(default_factory=Flag)
    value: Any = None
    error: BaseException | None = None


class RemoteEngine:
    """Implements `engine.interface.Engine` over one connection. Every method is safe on any thread.

    When the connection ends, every request in flight ends with an EngineDeadError.

    Args:
        token: what the host expects to hear first.
        answer_timeout_s: most time until the host says that it has received something; None waits.
        on_lost: called once, from the reading thread, when the connection has ended without `close`.
        lost_message: asked once, from the reading thread, for what to tell those whose requests are in flight then.

    Attributes:
        num_others: other connections that use the engine.

    Raises:
        EngineError: nobody answers there, or not in this version of the protocol.
    """

    def __init__(
        self,
        address: Address,
        *,
        token: str,
        answer_timeout_s: float | None = None,
        on_lost: Callable[[], None] | None = None,
        lost_message: Callable[[], str] | None = None,
    ) -> None:
        self._answer_timeout_s, self._on_lost = answer_timeout_s, on_lost
        self._lost_message = lost_message or (lambda: _LOST)
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._tickets: dict[int, RemoteTicket] = {}
        self._calls: dict[int, _Pending] = {}
        self._is_closed = self._is_lost = False
        self._farewell = _LOST
        self.num_others = 0
        self._greeting = _Pending()
        try:
            connection = dial(address, CONNECT_TIMEOUT_S)
        except OSError as exc:
            raise EngineDeadError(f"no engine answers there: {exc.strerror or exc}") from exc
        self._channel = Channel(connection, self._take, self._lost)
        self._channel.start()
        self.info: EngineInfo = self._greet(token)

    # ---- the engine protocol

    def submit(self, request: Request, on_chunk: OnChunk) -> RemoteTicket:
        """Send a request, and wait until it was taken in; see `Engine.submit`."""
        reply = _Pending()

        def replied(error: BaseException | None) -> None:
            reply.error = error
            reply.is_here.set()

        received = Flag()
        ticket = self.begin(request, on_chunk, replied, received.set)
        try:
            self._await_sign(received)
            reply.is_here.wait()
        except BaseException:
            ticket.cancel()
            raise
        if reply.error is not None:
            raise reply.error
        return ticket

    def begin(
        self,
        request: Request,
        on_chunk: OnChunk,
        on_reply: OnReply,
        on_received: Callable[[], None] | None = None,
    ) -> RemoteTicket:
        """`submit` that never waits. The callbacks come from the reading thread.

        Args:
            on_received: called when the other process has the request, before it has looked at it.

        Raises:
            InvalidRequestError: the request cannot be sent.
            EngineError: the connection has ended.
        """
        open_answers = set(range(num_answers(request)))
        ticket = RemoteTicket(self, next(self._ids), on_chunk, on_reply, on_received, open_answers)
        payload = messages.encoded_request(messages.submission(ticket.id, request))
        with self._lock:
            self._check_open()
            self._tickets[ticket.id] = ticket
        try:
            self._channel.send(payload)
        except BaseException:  # whoever asked gets no ticket to cancel it with
            ticket.cancel()
            raise
        return ticket

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        value: list[int] = self._call(lambda id: messages.Tokenize(id, text, parse_special))
        return value

    def detokenize(self, tokens: Sequence[int]) -> str:
        value: str = self._call(lambda id: messages.Detokenize(id, tuple(tokens)))
        return value

    def render(self, request: GenerateRequest) -> RenderedPrompt:
        value: RenderedPrompt = self._call(lambda id: messages.Render(id, request))
        return value

    def stats(self) -> EngineStats:
        value: EngineStats = self._call(messages.Stats)
        return value

    def close(self) -> None:
        """End the connection; the model stays where it is. What is in flight ends with an error."""
        self._is_closed = True
        self._channel.close()

    # ---- beyond it

    def abandon(self) -> None:
        """End the connection to a process that has ended: what is in flight ends as when that is noticed here."""
        self._channel.close()

    @property
    def is_alive(self) -> bool:
        return not (self._is_closed or self._is_lost)

    def _cancel(self, ticket: RemoteTicket) -> None:
        self._channel.send(messages.encoded_request(messages.Cancel(ticket.id)))

    # ---- calls

    def _call(self, message: Callable[[int], messages.Call]) -> Any:
        id, pending = next(self._ids), _Pending()
        payload = messages.encoded_request(message(id))
        with self._lock:
            self._check_open()
            self._calls[id] = pending
        try:
            self._channel.send(payload)
            self._await_sign(pending.is_received)
            pending.is_here.wait()
        finally:
            with self._lock:
                self._calls.pop(id, None)
        if pending.error is not None:
            raise pending.error
        return pending.value

    def _greet(self, token: str) -> EngineInfo:
        self._channel.send(messages.encoded_request(messages.Hello(messages.PROTOCOL, token)))
        if not self._greeting.is_here.wait(CONNECT_TIMEOUT_S):
            self.close()
            raise EngineDeadError("the process that runs the model does not answer")
        if self._greeting.error is not None:
            self.close()
            raise self._greeting.error
        info: EngineInfo = self._greeting.value
        return info

    def _await_sign(self, received: Flag) -> None:
        if self._answer_timeout_s is not None and not received.wait(self._answer_timeout_s):
            raise EngineDeadError(
                f"the process that runs the model gave no sign for {self._answer_timeout_s:g} s; it may be busy in "
                "code that lets nothing else run"
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineClosedError(_CLOSED)
        if self._is_lost:
            raise EngineDeadError(self._farewell)

    # ---- the reading thread

    def _take(self, payload: bytes) -> None:
        message = messages.decoded_answer(payload)
        if isinstance(message, messages.Piece):
            self._take_piece(message)
        elif isinstance(message, messages.Received):
            self._take_receipt(message.id)
        elif isinstance(message, messages.Welcome):
            self._greeting.value = message.info
            self._greeting.is_here.set()
        elif isinstance(message, messages.Taken | messages.Refused):
            self._take_reply(message)
        elif isinstance(message, messages.Guests):
            self.num_others = message.num
        else:
            self._settle(self._calls.get(message.id), message.value, None)

    def _take_receipt(self, id: int) -> None:
        ticket, pending = self._tickets.get(id), self._calls.get(id)
        if ticket is not None and ticket.on_received is not None:
            ticket.on_received()
        if pending is not None:
            pending.is_received.set()

    def _take_reply(self, message: messages.Taken | messages.Refused) -> None:
        error = message.error if isinstance(message, messages.Refused) else None
        if message.id == 0:
            self._settle(self._greeting, None, error)
        elif message.id in self._calls:
            self._settle(self._calls[message.id], None, error)
        else:
            ticket = self._tickets.get(message.id)
            if ticket is not None:
                if error is not None:
                    self._forget(ticket)
                _reply(ticket, error)

    def _take_piece(self, message: messages.Piece) -> None:
        ticket = self._tickets.get(message.id)
        if ticket is None:
            return
        _reply(ticket, None)  # an engine may answer before it returns from `submit`
        if message.chunk.finish_reason is not None:
            ticket.open_answers.discard(message.chunk.index)
            if not ticket.open_answers:
                self._forget(ticket)
        self._give(ticket, message.chunk)

    def _give(self, ticket: RemoteTicket, chunk: Chunk) -> None:
        try:
            ticket.on_chunk(chunk)
        except Exception:  # noqa: BLE001  # it ends its own request and nothing else
            self._forget(ticket)
            with contextlib.suppress(EngineError):
                self._cancel(ticket)
            ticket.open_answers.clear()

    def _forget(self, ticket: RemoteTicket) -> None:
        with self._lock:
            self._tickets.pop(ticket.id, None)

    def _settle(self, pending: _Pending | None, value: object, error: BaseException | None) -> None:
        if pending is not None:
            pending.value, pending.error = value, error
            pending.is_received.set()
            pending.is_here.set()

    def _lost(self) -> None:
        with self._lock:
            self._is_lost = True
            tickets, calls = list(self._tickets.values()), list(self._calls.values())
            self._tickets.clear()
        if not self._is_closed:
            self._farewell = self._lost_message()
        error = EngineClosedError(_CLOSED) if self._is_closed else EngineDeadError(self._farewell)
        for pending in (*calls, self._greeting):
            if not pending.is_here.is_set():
                self._settle(pending, None, error)
        for ticket in tickets:
            self._end(ticket, error)
        if not self._is_closed and self._on_lost is not None:
            self._on_lost()

    def _end(self, ticket: RemoteTicket, error: EngineError) -> None:
        if not ticket.is_answered:
            ticket.open_answers.clear()
            _reply(ticket, error)
            return
        for index in sorted(ticket.open_answers):
            ticket.open_answers.discard(index)
            self._give(ticket, Chunk(index=index, finish_reason="error", error=error))


def _reply(ticket: RemoteTicket, error: BaseException | None) -> None:
    if not ticket.is_answered:
        ticket.is_answered = True
        ticket.on_reply(error)
