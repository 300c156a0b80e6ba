"""Where in a notebook a chat appears."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Publish = Callable[..., None]
Bundle = Mapping[str, Any]


class Place:
    """The outputs of one chat, all under one display id, so that they can become text together.

    Args:
        publish: as IPython's `DisplayPublisher.publish`.
        updates: whether an output can be changed once it is shown; a terminal prints it a second time.
    """

    def __init__(self, publish: Publish, chat_id: str, *, updates: bool) -> None:
        self._publish, self._chat_id, self._updates = publish, chat_id, updates
        self._is_shown = False

    def show(self, bundle: Bundle) -> None:
        """Give the running cell an output."""
        self._is_shown = True
        self._send(bundle, update=False)

    def update(self, bundle: Bundle) -> None:
        """Change every output so far, whatever cell runs, on any thread."""
        if self._is_shown and self._updates:
            self._send(bundle, update=True)

    def _send(self, bundle: Bundle, *, update: bool) -> None:
        self._publish(
            data=dict(bundle),
            metadata={"nbllm": {"chat": self._chat_id}},
            transient={"display_id": f"nbllm-chat-{self._chat_id}"},
            update=update,
        )
