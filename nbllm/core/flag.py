"""Waiting for another thread, which an interrupt at any moment leaves working.

A signal's handler may raise in the main thread where a call of C code has returned, and an interrupted cell is such a
case. The Condition and the Event of the standard library take their lock in Python code; interrupted right after that
they keep it, and whoever needs it later waits for ever. A lock of C code in a `with` statement has no such moment.
"""

from __future__ import annotations

import contextlib
import threading
import time

_LOOK_S = 0.5
"""How soon a waiting thread sees what an interrupted `set` could not tell it."""


class Flag:
    """As threading.Event, as far as it goes."""

    def __init__(self) -> None:
        self._is_set = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        """Let all go on that wait, now and from now on. Twice is harmless."""
        self._is_set = True
        self._open()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, at most `timeout` seconds, and tell whether it is set; an interrupt gets through on every platform."""
        ends = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            left = _LOOK_S if ends is None else min(_LOOK_S, ends - time.monotonic())
            if left <= 0:
                break
            if self._gate.acquire(timeout=left):
                self._open()
        return self._is_set

    def _open(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is open
            self._gate.release()
