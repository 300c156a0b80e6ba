"""Where an engine waits for those who use it: a socket that only this user can reach."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import struct
import tempfile
from pathlib import Path

import msgspec

from nbllm.runner.errors import ProtocolError

_MOST_PATH_BYTES = 100
"""A Unix socket's address has room for some 104 bytes."""
_BACKLOG = 128


class UnixAddress(msgspec.Struct, frozen=True, tag="unix"):
    """A socket in a folder that only its owner can open."""

    path: str


class LoopbackAddress(msgspec.Struct, frozen=True, tag="loopback"):
    """A port of this machine, where there are no Unix sockets; only the token keeps others out."""

    port: int


Address = UnixAddress | LoopbackAddress


class Listener:
    """A bound socket, and the folder that was made for it. Get one from `listen`."""

    def __init__(self, bound: socket.socket, address: Address, folder: Path | None) -> None:
        self._socket, self._folder = bound, folder
        self.address = address

    def accept(self) -> socket.socket:
        """Wait for the next connection of this user; one of another user is closed unheard.

        Raises:
            OSError: the listener was closed.
        """
        while True:
            connection, _ = self._socket.accept()
            if isinstance(self.address, LoopbackAddress) or _is_ours(connection):
                return connection
            connection.close()

    def close(self) -> None:
        """Stop, and wake a thread that waits in `accept`. Twice is harmless."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if isinstance(self.address, UnixAddress):
            with contextlib.suppress(OSError):
                os.unlink(self.address.path)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def listen(folder: Path) -> Listener:
    """Wait for connections at a new socket in `folder`, which is made if it is missing.

    Where the path would be too long for a socket, a temporary folder takes its place.

    Raises:
        OSError: there is no room, or no right, to make a socket.
    """
    if not hasattr(socket, "AF_UNIX"):
        return _listen_on_loopback()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path, temporary = folder / f"{secrets.token_hex(8)}.sock", None
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        temporary = Path(tempfile.mkdtemp(prefix="nbllm-"))  # 0700
        path = temporary / "engine.sock"
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(os.fspath(path))
        os.chmod(path, 0o600)
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Listener(bound, UnixAddress(os.fspath(path)), temporary)


def dial(address: Address, timeout_s: float) -> socket.socket:
    """Connect to an engine.

    Raises:
        OSError: nobody waits there.
        ProtocolError: the socket is another user's.
    """
    if isinstance(address, LoopbackAddress):
        return socket.create_connection(("127.0.0.1", address.port), timeout_s)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(address.path)
        if not _is_ours(connection):
            raise ProtocolError("the engine's socket belongs to another user")
    except BaseException:
        connection.close()
        raise
    return connection


def _listen_on_loopback() -> Listener:
    bound = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    return Listener(bound, LoopbackAddress(bound.getsockname()[1]), None)


def _is_ours(connection: socket.socket) -> bool:
    """Whether the process at the other end runs as this user, as far as the platform tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the folder's mode and the token stand for it
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return bool(uid == os.getuid())
