"""What a widget does to its page, in one order, whichever threads ask for it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

_logger = logging.getLogger("nbllm.widget")


class Outbox:
    """Actions that are done one after the other: `put` remembers one, `deliver` does all that are there.

    One thread at a time delivers, for all. It holds no lock while it does, so an action may call anything, the widget
    itself included; what that puts is done after it. `put` may be called under a lock, to fix the order.
    """

    def __init__(self) -> None:
        self._actions: deque[Callable[[], object]] = deque()
        self._turn: dict[str, int] = {}  # "of": the thread that delivers. No lock: see nbllm.core.flag
        self._is_at_it = False

    def put(self, action: Callable[[], object]) -> None:
        self._actions.append(action)

    def deliver(self) -> None:
        """Do what was put, unless another thread is at it, or an action of this one; then it is done there."""
        own = threading.get_ident()
        while self._actions and self._turn.setdefault("of", own) == own and not self._is_at_it:
            try:
                self._is_at_it = True
                self._do_all()
            finally:
                self._is_at_it = False
                self._turn.clear()
            # What came between the last look and the release found the turn taken: hence the loop.

    def _do_all(self) -> None:
        while self._actions:
            action = self._actions.popleft()
            try:
                action()
            except Exception:  # an observer's, or a comm's that has gone: neither may end an answer
                _logger.exception("the chat widget could not update its page")
