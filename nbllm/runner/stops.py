"""A way to stop what a process does that its busy main thread cannot hold up: a socket and a thread of their own.

    stop-<token>.json     {"pid": 4711, ..., "address": {...}}     mode 0600, beside the records of engines

Whoever knows the token finds the file, connects to the address in it, and says the token with a line feed; the answer
is one byte, `1` when what was asked has been done.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import re
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import msgspec

from nbllm.errors import NbllmError
from nbllm.runner import records
from nbllm.runner.listener import Address, Listener, dial, listen
from nbllm.store.files import own_data, replace_file

_TOKEN = re.compile(r"[0-9a-f]{32}")
_FILE_NAME = re.compile(rf"stop-{_TOKEN.pattern}\.json")
_LISTEN_S = 1.0
"""A caller that says nothing holds up the others for so long; each of them waits longer."""
_ASK_S = 2.0
_DONE, _FAILED = b"1", b"0"
_logger = logging.getLogger("nbllm.stops")


class _Stop(records.Process, frozen=True, kw_only=True):
    """What is in the file."""

    address: Address


class StopListener:
    """Calls `on_stop` whenever somebody of this user asks with the token.

    Args:
        folder: where the records of engines are: `Config.runtime_dir`.
        on_stop: called on a thread of this listener, which keeps it alive until `close`; it must return at once.

    Attributes:
        token: 32 hexadecimal characters that nobody can guess.

    Raises:
        ParameterError: the folder cannot be used; it says why.
        OSError: there is no room, or no right, for a socket or a file.
    """

    def __init__(self, folder: Path, on_stop: Callable[[], None]) -> None:
        self.token = secrets.token_hex(16)
        folder = records.prepare(folder)
        path, listener, closed = folder / f"stop-{self.token}.json", listen(folder), threading.Event()
        self._release = weakref.finalize(self, _release, os.getpid(), path, listener, closed)
        work = (folder, listener, self.token, on_stop, closed)
        try:
            replace_file(path, msgspec.json.encode(_own(listener.address)), prefix=".stop-")
            threading.Thread(target=_serve, args=work, name="nbllm-stops", daemon=True).start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take the file and the socket back. Twice is harmless, and so is a forked child: they are its parent's."""
        self._release()


def request_stop(folder: Path, token: object) -> bool:
    """Whether somebody who listens in the folder under this token has stopped. Never raises; takes 2 s at most."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return False
    path = folder / f"stop-{token}.json"
    found = records.decoded(own_data(path, most_bytes=records.MAX_RECORD_BYTES), _Stop)
    if found is None or not records.is_near(found):
        return False
    if not records.is_alive(found):
        _discard(path, found, folder)
        return False
    try:
        return _ask(found.address, token) == _DONE
    except (OSError, NbllmError, ValueError, OverflowError):  # the last two: an address that nobody can have
        return False


def _ask(address: Address, token: str) -> bytes:
    deadline = time.monotonic() + _ASK_S
    with dial(address, _ASK_S) as connection:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        connection.sendall(_line(token))
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        return connection.recv(1)


def _own(address: Address) -> _Stop:
    own = records.this_process()
    return _Stop(pid=own.pid, started=own.started, host=own.host, boot=own.boot, uid=own.uid, address=address)


def _line(token: str) -> bytes:
    return token.encode() + b"\n"


def _release(pid: int, path: Path, listener: Listener, closed: threading.Event) -> None:
    if os.getpid() == pid:  # a shutdown of the socket would reach the parent's too
        closed.set()
        records.remove(path)
        listener.close()


def _discard(path: Path, found: _Stop, folder: Path) -> None:
    """Remove what a dead process left behind."""
    records.remove(path)
    records.discard_socket(found.address, folder)


# ---- the listener's thread


def _serve(folder: Path, listener: Listener, token: str, on_stop: Callable[[], None], closed: threading.Event) -> None:
    """Knows nothing of the `StopListener`, so that one that nobody holds any more is freed."""
    _sweep(folder)
    while not closed.is_set():
        try:
            connection = listener.accept()
        except OSError:
            closed.wait(0.1)  # closed, or no file descriptor is free: others may be given back
            continue
        with connection, contextlib.suppress(OSError):
            if hmac.compare_digest(_heard(connection, len(_line(token))), _line(token)):
                connection.sendall(_stopped(on_stop))


def _sweep(folder: Path) -> None:
    for path, data in records.own_files(folder, _FILE_NAME):
        found = records.decoded(data, _Stop)
        if found is not None and records.is_near(found) and not records.is_alive(found):
            _discard(path, found, folder)


def _heard(connection: socket.socket, num_bytes: int) -> bytes:
    """So many bytes, or what came of them in time."""
    heard, deadline = b"", time.monotonic() + _LISTEN_S
    while len(heard) < num_bytes and (left_s := deadline - time.monotonic()) > 0:
        connection.settimeout(left_s)
        piece = connection.recv(num_bytes - len(heard))
        if not piece:
            break
        heard += piece
    return heard


def _stopped(on_stop: Callable[[], None]) -> bytes:
    try:
        on_stop()
    except Exception:
        _logger.exception("stopping failed")
        return _FAILED
    return _DONE
