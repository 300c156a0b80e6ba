"""Where in a notebook a chat appears."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Publish = Callable[..., None]
Bundle = Mapping[str, Any]


class Place:
    """The outputs of one chat, which become text together.

    Each has a display id of its own: a front end takes what is shown under a known one as an update of the outputs
    that are there, and would build their views anew, without what is typed in them.

    Args:
        publish: as IPython's `DisplayPublisher.publish`.
        updates: whether an output can be changed once it is shown; a terminal prints it a second time.
    """

    def __init__(self, publish: Publish, chat_id: str, *, updates: bool) -> None:
        self._publish, self._chat_id, self._updates = publish, chat_id, updates
        self._num_shown = 0

    def show(self, bundle: Bundle) -> None:
        """Give the running cell an output."""
        self._num_shown += 1
        self._send(bundle, self._num_shown, update=False)

    def update(self, bundle: Bundle) -> None:
        """Change every output so far, whatever cell runs, on any thread."""
        if self._updates:
            for number in range(1, self._num_shown + 1):
                self._send(bundle, number, update=True)

    def _send(self, bundle: Bundle, number: int, *, update: bool) -> None:
        self._publish(
            data=dict(bundle),
            metadata={"nbllm": {"chat": self._chat_id}},
            transient={"display_id": f"nbllm-chat-{self._chat_id}-{number}"},
            update=update,
        )
