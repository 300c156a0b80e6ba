"""llama.cpp's own log, sent to Python's `logging` and quoted when a load fails.

The logger is `nbllm.llama`; llama.cpp's info is Python's debug, since one load says a hundred lines.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
from collections import deque
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger("nbllm.llama")
logger.addHandler(logging.NullHandler())

_LEVELS = {1: 5, 2: logging.DEBUG, 3: logging.INFO, 4: logging.WARNING}
_ERROR = 4
_recent: deque[tuple[int, str]] = deque(maxlen=200)
_last_level = 2
_callback: Any = None


def route(api: Any) -> None:
    """Send llama.cpp's log through `logging` from now on; the callback lives as long as the process."""
    global _callback
    _callback = api.llama_log_callback(_receive)
    api.llama_log_set(_callback, None)
    atexit.register(_silence, api)


def _receive(level: int, text: bytes, _data: object) -> None:
    """llama.cpp calls this from any thread; nothing may escape into C."""
    global _last_level
    try:
        line = text.decode("utf-8", errors="replace").rstrip("\n")
        _last_level = level if level in _LEVELS else _last_level  # 5 continues the line before it
        if not line.strip(". "):
            return
        _recent.append((_last_level, line))
        number = _LEVELS[_last_level]
        if logger.isEnabledFor(number):
            logger.log(number, "%s", line)
    except Exception:  # noqa: BLE001, S110  # an exception here would be printed by ctypes, or lost
        pass


def _silence(api: Any) -> None:
    """At exit Python callbacks are no longer safe: point llama.cpp at a C function that ignores its arguments."""
    with contextlib.suppress(Exception):
        sink = ctypes.cast(ctypes.CDLL(None).labs, api.llama_log_callback)
        api.llama_log_set(sink, None)


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """Collect the errors that llama.cpp logs inside the block; the list is filled when the block ends."""
    _recent.clear()
    errors: list[str] = []
    try:
        yield errors
    finally:
        errors.extend(line for level, line in _recent if level >= _ERROR)
