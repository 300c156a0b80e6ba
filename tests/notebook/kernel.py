"""A real kernel, and what it says while it runs a cell."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 60


@dataclass(slots=True)
class Ran:
    """What one cell gave out, in order."""

    reply: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)

    def contents(self, *kinds: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["msg_type"] in kinds]

    @property
    def printed(self) -> str:
        """All that was printed: the kernel may send one line in several messages."""
        return "".join(content["text"] for content in self.contents("stream"))

    @property
    def displays(self) -> list[dict[str, Any]]:
        return self.contents("display_data", "update_display_data")

    @property
    def markdown(self) -> str:
        text: str = self.displays[-1]["data"]["text/markdown"]
        return text

    @property
    def record(self) -> dict[str, Any]:
        """The metadata that stays with the output."""
        found: dict[str, Any] = self.displays[-1]["metadata"]["nbllm"]
        return found


class Kernel:
    """Runs cells one by one."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager, self._client = manager, client

    def run(self, code: str, watch: Callable[[dict[str, Any]], None] | None = None) -> Ran:
        """Run a cell to its end. `watch` sees every message as it comes.

        Raises:
            TimeoutError: the kernel hangs.
        """
        ran = Ran()
        sent = self._client.execute(code)
        while not (ran.messages and _is_idle(ran.messages[-1])):
            message = self._next(self._client.get_iopub_msg, sent)
            ran.messages.append(message)
            if watch is not None:
                watch(message)
        ran.reply = self._next(self._client.get_shell_msg, sent)["content"]
        return ran

    def _next(self, get: Callable[..., dict[str, Any]], sent: str) -> dict[str, Any]:
        while True:
            try:
                message = get(timeout=TIMEOUT_S)
            except queue.Empty:
                raise TimeoutError(f"nothing from the kernel for {TIMEOUT_S} s") from None
            if message["parent_header"].get("msg_id") == sent:
                return message


@contextmanager
def started() -> Iterator[Kernel]:
    """A kernel of this Python, in which `nbllm` is this folder's."""
    manager, client = start_new_kernel(env=environment(), startup_timeout=TIMEOUT_S)
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def environment() -> dict[str, str]:
    """For a process that a test starts."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def _is_idle(message: dict[str, Any]) -> bool:
    is_status = message["msg_type"] == "status"
    return is_status and bool(message["content"]["execution_state"] == "idle")
