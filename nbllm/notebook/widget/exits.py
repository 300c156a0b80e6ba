"""The chats that are open in this process, and what becomes of them at its end: text, in the notebook that is left."""

from __future__ import annotations

import atexit
import logging
import os
from typing import Protocol

_logger = logging.getLogger("nbllm.widget")


class Closable(Protocol):
    def close(self) -> None: ...


class _Open:
    """Those of one process, by the ids of their chats. They are held until they are closed."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.chats: dict[str, Closable] = {}


_open = _Open()


def add(chat_id: str, chat: Closable) -> None:
    """Close the chat at the end of this process, unless it is removed before."""
    _open.chats[chat_id] = chat


def remove(chat_id: str) -> bool:
    """Whether the chat was open."""
    return _open.chats.pop(chat_id, None) is not None


def find(chat_id: str) -> Closable | None:
    """The open chat of this id."""
    return _open.chats.get(chat_id)


def _close_all() -> None:
    if os.getpid() != _open.pid:
        return  # a forked child: its parent's outputs are none of its own
    for chat in list(_open.chats.values()):
        try:
            chat.close()
        except Exception:  # the others have to become text all the same
            _logger.exception("a chat could not be closed")


atexit.register(_close_all)
