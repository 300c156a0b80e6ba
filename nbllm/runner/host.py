"""Serves an engine of this process to other processes of the same user, from threads."""

from __future__ import annotations

import contextlib
import hmac
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from nbllm.core import Chunk
from nbllm.engine.interface import Engine, Ticket, num_answers
from nbllm.errors import EngineError
from nbllm.runner import messages
from nbllm.runner.channel import Channel
from nbllm.runner.errors import ProtocolError
from nbllm.runner.listener import Address, Listener

MAX_CONNECTIONS = 64
_NUM_SUBMITTERS = 2
"""Threads that render prompts: one slow template must not hold up everybody's requests."""


class EngineHost:
    """Accepts connections and answers what comes with `engine`, which stays the caller's to close.

    Args:
        listener: owned from here on.
        token: what a client has to say first.
    """

    def __init__(self, engine: Engine, listener: Listener, token: str) -> None:
        self._engine, self._listener, self._token = engine, listener, token
        self._guests: set[_Guest] = set()
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(_NUM_SUBMITTERS, "nbllm-host-submit")
        self._is_closed = False

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def address(self) -> Address:
        return self._listener.address

    def start(self) -> None:
        threading.Thread(target=self._accept, name="nbllm-host", daemon=True).start()

    def close(self) -> None:
        """Take no more connections, end those there are, and cancel what they asked. Twice is harmless."""
        self._is_closed = True
        self._listener.close()
        with self._lock:
            guests = list(self._guests)
        for guest in guests:
            guest.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    # ---- what the guests use

    def check(self, hello: messages.Hello) -> None:
        """Raises ProtocolError when the other side is of another version, or has no right to be here."""
        if hello.protocol != messages.PROTOCOL:
            raise ProtocolError(f"this engine speaks protocol {messages.PROTOCOL}, not {hello.protocol}")
        if not hmac.compare_digest(hello.token.encode(), self._token.encode()):
            raise ProtocolError("wrong token: read it from the engine's record")

    def aside(self, work: Callable[[], None]) -> None:
        """Do what may take a moment without holding up the connection that asked."""
        with contextlib.suppress(RuntimeError):  # the pool is closed, and so is the connection
            self._workers.submit(work)

    def forget(self, guest: _Guest) -> None:
        with self._lock:
            self._guests.discard(guest)
            self._announce()

    def welcomed(self, guest: _Guest) -> None:
        """It has shown that it may be here."""
        with self._lock:
            guest.is_known = True
            self._announce()

    def _announce(self) -> None:
        """Under the lock, so that the last number that each hears is the right one."""
        known = [guest for guest in self._guests if guest.is_known]
        for guest in known:
            guest.hear_of_others(len(known) - 1)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                connection = self._listener.accept()
            except OSError:
                if self._is_closed:
                    return
                time.sleep(0.1)  # no file descriptor is free: others may be given back
                continue
            self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        with self._lock:
            is_full = len(self._guests) >= MAX_CONNECTIONS or self._is_closed
            if not is_full:
                guest = _Guest(self, connection)
                self._guests.add(guest)
        if is_full:
            connection.close()
        else:
            guest.start()


class _Guest:
    """One connection, and the requests that came over it."""

    def __init__(self, host: EngineHost, connection: socket.socket) -> None:
        self._host = host
        self._engine = host.engine
        self._channel = Channel(connection, self._take, self._closed)
        self.is_known = False
        self._num_others = 0
        self._lock = threading.Lock()
        self._tickets: dict[int, Ticket | None] = {}  # None while the engine has not taken the request in
        self._cancelled: set[int] = set()

    def start(self) -> None:
        self._channel.start()

    def close(self) -> None:
        self._channel.close()

    def hear_of_others(self, num: int) -> None:
        if num != self._num_others:
            self._num_others = num
            self._send(messages.Guests(num))

    # ---- the reading thread

    def _take(self, payload: bytes) -> None:
        message = messages.decoded_request(payload)
        if not self.is_known:
            self._greet(message)
        elif isinstance(message, messages.Cancel):
            self._cancel(message.id)
        elif isinstance(message, messages.Submission):
            self._send(messages.Received(message.id))
            with self._lock:
                self._tickets[message.id] = None
            self._host.aside(partial(self._submit, message))
        elif not isinstance(message, messages.Hello):
            self._send(messages.Received(message.id))
            self._host.aside(partial(self._call, message))

    def _greet(self, message: messages.FromClient) -> None:
        if not isinstance(message, messages.Hello):
            raise ProtocolError("the first message has to be the greeting")
        try:
            self._host.check(message)
        except ProtocolError as error:
            self._send(messages.Refused(0, error))
            self._channel.finish()
            return
        self._send(messages.Welcome(self._engine.info))
        self._host.welcomed(self)

    def _cancel(self, id: int) -> None:
        with self._lock:
            ticket = self._tickets.get(id)
            if id in self._tickets and ticket is None:
                self._cancelled.add(id)
        if ticket is not None:
            ticket.cancel()

    def _closed(self) -> None:
        self._host.forget(self)
        with self._lock:
            tickets = [ticket for ticket in self._tickets.values() if ticket is not None]
            self._cancelled.update(self._tickets)
        for ticket in tickets:
            ticket.cancel()

    # ---- the host's workers

    def _submit(self, message: messages.Submission) -> None:
        if message.id in self._cancelled and not self._channel.is_open:
            return
        try:
            ticket = self._engine.submit(message.request, _Outlet(self, message.id, num_answers(message.request)))
        except Exception as error:  # noqa: BLE001  # it goes to whoever asked
            self._ended(message.id)
            self._refuse(message.id, error)
            return
        self._send(messages.Taken(message.id))
        with self._lock:
            if message.id in self._tickets:
                self._tickets[message.id] = ticket
            is_unwanted = message.id in self._cancelled
        if is_unwanted:
            ticket.cancel()

    def _call(self, message: messages.Call) -> None:
        try:
            self._send(_result(self._engine, message))
        except Exception as error:  # noqa: BLE001  # it goes to whoever asked
            self._refuse(message.id, error)

    # ---- the engine's thread

    def piece(self, id: int, chunk: Chunk, *, is_last: bool) -> None:
        if is_last:
            self._ended(id)
        self._send(messages.Piece(id, chunk))

    def _ended(self, id: int) -> None:
        with self._lock:
            self._tickets.pop(id, None)
            self._cancelled.discard(id)

    def _refuse(self, id: int, error: BaseException) -> None:
        with contextlib.suppress(EngineError):
            self._send(messages.Refused(id, error))

    def _send(self, message: messages.FromHost) -> None:
        self._channel.send(messages.encoded_answer(message))


class _Outlet:
    """Where the chunks of one request go."""

    def __init__(self, guest: _Guest, id: int, num_open: int) -> None:
        self._guest, self._id, self._num_open = guest, id, num_open

    def __call__(self, chunk: Chunk) -> None:
        self._num_open -= chunk.finish_reason is not None
        self._guest.piece(self._id, chunk, is_last=self._num_open == 0)


def _result(engine: Engine, message: messages.Call) -> messages.Result:
    if isinstance(message, messages.Tokenize):
        return messages.Tokens(message.id, engine.tokenize(message.text, parse_special=message.parse_special))
    if isinstance(message, messages.Detokenize):
        return messages.Text(message.id, engine.detokenize(message.tokens))
    if isinstance(message, messages.Render):
        return messages.Rendered(message.id, engine.render(message.request))
    return messages.Load(message.id, engine.stats())
