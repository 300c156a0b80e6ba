"""llama.cpp's own log, sent to Python's `logging` and quoted when a load fails.

The logger is `nbllm.llama`; llama.cpp's info is Python's debug, since one load says a hundred lines.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger("nbllm.llama")
logger.addHandler(logging.NullHandler())

_LEVELS = {1: 5, 2: logging.DEBUG, 3: logging.INFO, 4: logging.WARNING}
_ERROR = 4
_recent: deque[tuple[int, str]] = deque(maxlen=200)
_last_level = 2
_is_expected: Callable[[], bool] | None = None
_api: Any = None
_callback: Any = None
_listener: Callable[[str], None] | None = None


def route(api: Any) -> None:
    """Send llama.cpp's log through `logging` from now on; the callback lives as long as the process."""
    global _api, _callback
    _api, _callback = api, api.llama_log_callback(_receive)
    _set(_callback)
    atexit.register(_silence)


def _receive(level: int, text: bytes, _data: object) -> None:
    """llama.cpp calls this from any thread; nothing may escape into C."""
    global _last_level
    try:
        line = text.decode("utf-8", errors="replace").rstrip("\n")
        _last_level = level if level in _LEVELS else _last_level  # 5 continues the line before it
        if not line.strip(". "):
            return
        _recent.append((_last_level, line))
        if _listener is not None:
            _listener(line)
        is_echo = _is_expected is not None and _is_expected()
        number = logging.DEBUG if is_echo else _LEVELS[_last_level]
        if logger.isEnabledFor(number):
            logger.log(number, "%s", line)
    except Exception:  # noqa: BLE001, S110  # an exception here would be printed by ctypes, or lost
        pass


@contextlib.contextmanager
def expecting_abort(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """Inside the block, errors that are the echo of an abort that was asked for are for debugging only."""
    global _is_expected
    _is_expected = is_wanted
    try:
        yield
    finally:
        _is_expected = None


def _set(callback: Any) -> None:
    _api.llama_log_set(callback, None)


def _silence() -> None:
    """At exit Python callbacks are no longer safe: point llama.cpp at a C function that ignores its arguments."""
    with contextlib.suppress(Exception):
        _set(ctypes.cast(ctypes.CDLL(None).labs, _api.llama_log_callback))


@contextlib.contextmanager
def captured(listener: Callable[[str], None] | None = None) -> Iterator[list[str]]:
    """Collect the errors that llama.cpp logs inside the block; the list is filled when the block ends.

    Args:
        listener: called with every line, in the thread that says it.
    """
    global _listener
    _set(_callback)  # a program that has imported llama_cpp since has sent the log elsewhere
    _recent.clear()
    errors: list[str] = []
    _listener = listener
    try:
        yield errors
    finally:
        _listener = None
        errors.extend(line for level, line in _recent if level >= _ERROR)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Leave out what llama.cpp says inside the block, unless `logging` shows it.

    Loading a model says a thousand lines, and each would take the GIL from what Python does meanwhile.
    """
    if logger.isEnabledFor(_LEVELS[3]):
        _set(_callback)
    else:
        _silence()
    try:
        yield
    finally:
        _set(_callback)
