"""What `%llm chat` opens: a conversation of this notebook, or a chat that is only on disk any more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nbllm.notebook.widget import exits
from nbllm.notebook.widget.chat_widget import ChatWidget
from nbllm.notebook.widget.shelf import Shelf

if TYPE_CHECKING:
    from nbllm.notebook.desk import Desk

_ID = re.compile(r"\d{8}-[0-9a-f]{12}")


def opened(desk: Desk, name: str | None = None) -> ChatWidget:
    """The widget of a conversation, which begins here if there is none of that name.

    Args:
        name: of a conversation, or the id of a chat: the widget that has it, as long as its kernel lives, and after
            that what is on disk, which becomes a conversation of that name. What is said in it from now on is a chat
            with an id of its own: the one on disk stays as it was saved.

    Raises:
        InvalidRequestError: it has the form of an id, and there is no such chat.
    """
    open_one = exits.find(name) if name is not None else None
    if isinstance(open_one, ChatWidget):
        return open_one
    if name is not None and _ID.fullmatch(name) and name not in desk.conversations.names():
        desk.conversations.begin(name, Shelf().messages(name))
    return ChatWidget(conversation=name)
