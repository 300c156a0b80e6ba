"""Those who are told when something changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_logger = logging.getLogger("nbllm")


class Watchers:
    """Who watches one thing. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called by every `tell`, on its thread.

        Returns:
            what ends that; calling it twice is harmless.
        """
        with self._lock:
            self._callbacks = [*self._callbacks, callback]

        def remove() -> None:
            with self._lock:
                self._callbacks = [other for other in self._callbacks if other is not callback]

        return remove

    def tell(self, what: str) -> None:
        """Call them, with no lock held. What they raise is logged with `what` changed."""
        for callback in self._callbacks:
            try:
                callback()
            except Exception:  # what changed was asked for by somebody else, who is not to fail for it
                _logger.exception("a watcher of %s failed", what)
