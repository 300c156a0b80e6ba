"""A connection that never makes its user wait: one thread reads, another writes."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable

from nbllm.errors import EngineError
from nbllm.runner.framing import FrameReader, framed

MAX_BACKLOG_BYTES = 1 << 28
"""What may wait to be written; a reader that is further behind than this has stopped reading."""
_READ_BYTES = 1 << 18


class Channel:
    """Frames over a socket.

    Args:
        connection: owned from here on.
        on_payload: called from the reading thread with each payload; an exception in it closes the channel.
        on_closed: called once, from the reading thread, when nothing more will come.
    """

    def __init__(
        self, connection: socket.socket, on_payload: Callable[[bytes], None], on_closed: Callable[[], None]
    ) -> None:
        connection.settimeout(None)
        self._socket = connection
        self._on_payload, self._on_closed = on_payload, on_closed
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._backlog = 0
        self.is_open = True

    def start(self) -> None:
        for target in (self._read, self._write):
            threading.Thread(target=target, name=f"nbllm-channel-{target.__name__[1:]}", daemon=True).start()

    def send(self, payload: bytes) -> None:
        """Hand a payload over and return at once; on a closed channel it is dropped.

        Raises:
            ProtocolError: the payload is too large.
        """
        frame = framed(payload)
        with self._lock:
            self._backlog += len(frame)
            overdue = self._backlog > MAX_BACKLOG_BYTES
        if overdue:
            self.close()
        elif self.is_open:
            self._outbox.put(frame)

    def finish(self) -> None:
        """Write what was sent so far, then end."""
        self.is_open = False
        self._outbox.put(None)

    def close(self) -> None:
        """End both directions; `on_closed` follows. Twice is harmless, and any thread may."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._outbox.put(None)

    def _read(self) -> None:
        frames = FrameReader()
        try:
            while data := self._socket.recv(_READ_BYTES):
                for payload in frames.push(data):
                    self._on_payload(payload)
        except (OSError, EngineError):
            pass  # the other side went away, or talks nonsense: either way this is the end
        finally:
            self.close()
            self._on_closed()

    def _write(self) -> None:
        try:
            while (frame := self._outbox.get()) is not None:
                data = self._with_more(frame)
                self._socket.sendall(data)
                with self._lock:
                    self._backlog -= len(data)
        except OSError:
            self.is_open = False
        finally:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _with_more(self, frame: bytes) -> bytes:
        """The frame, and what has gathered behind it: a write wakes the other side."""
        frames = [frame]
        with contextlib.suppress(queue.Empty):
            while (more := self._outbox.get_nowait()) is not None:
                frames.append(more)
            self._outbox.put(None)
        return b"".join(frames)
