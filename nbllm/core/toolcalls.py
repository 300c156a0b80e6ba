"""A tool call that comes in pieces."""

from __future__ import annotations

from dataclasses import dataclass, field

from nbllm.core.chunks import ToolCallDelta
from nbllm.core.messages import ToolCall


@dataclass(slots=True)
class GatheredCall:
    """The pieces of one index so far."""

    id: str = ""
    name: str = ""
    _arguments: list[str] = field(default_factory=list)

    def add(self, delta: ToolCallDelta) -> None:
        self.id = self.id or delta.id or ""
        self.name = self.name or delta.name or ""
        self._arguments.append(delta.arguments)

    @property
    def arguments(self) -> str:
        return "".join(self._arguments)

    @property
    def call(self) -> ToolCall:
        return ToolCall(self.id, self.name, self.arguments)
