"""What all cells of one shell share."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbllm.notebook.conversations import Conversations
from nbllm.notebook.seen import Seen
from nbllm.notebook.settings import NbLLM
from nbllm.notebook.shown import Shown

if TYPE_CHECKING:
    from nbllm.core import GenerateRequest
    from nbllm.notebook.models import Models
    from nbllm.notebook.next_input import NextInput

_UNFIT = re.compile(r"[^-.\w]")
"""What a conversation's name may hold and a file's should not."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The request that a cell sent, and the name of the model that got it."""

    request: GenerateRequest
    model: str | None


@dataclass(slots=True)
class Desk:
    """The state behind the magics of one shell."""

    shell: Any
    models: Models
    seen: Seen
    shown: Shown
    next_input: NextInput
    settings: NbLLM = field(default_factory=NbLLM)
    conversations: Conversations = field(default_factory=Conversations)
    last_sent: Sent | None = None
    started: str = field(default_factory=lambda: time.strftime("%Y%m%d-%H%M%S"))

    @property
    def namespace(self) -> dict[str, Any]:
        """The user's variables."""
        names: dict[str, Any] = self.shell.user_ns
        return names

    def autosave_file(self, conversation: str) -> str:
        """A name of this session's own, so that a restarted kernel overwrites nothing."""
        return f"{_UNFIT.sub('_', conversation)}-{self.started}.jsonl"

    @property
    def run(self) -> tuple[str | None, int]:
        """The id of the cell that asks, if the front end gives one, and the number of its run."""
        return self.seen.cell_id, self.seen.execution

    def show(self, data: dict[str, str]) -> None:
        """Give the running cell an output."""
        self.shell.display_pub.publish(data=data)
