"""A chat, turn by turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nbllm.errors import ParameterError

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants to be called; `arguments` is the text of a JSON object, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    An assistant's turn may hold `tool_calls`; a turn of the role "tool" answers the one that `tool_call_id` names.

    `reasoning` is what an assistant thought before it answered. `tokens` are the ids that the engine generated for
    `content`; they are spliced into the rendered prompt where the text still matches, because generated text does
    not always tokenize back to the ids it came from, and a different id would end the reuse of the cached prefix.
    """

    role: Role
    content: str
    reasoning: str | None = None
    name: str | None = None
    tokens: tuple[int, ...] | None = field(default=None, repr=False, compare=False)
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ParameterError("role", f"{self.role!r} is not one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise ParameterError("content", f"must be a string, not {type(self.content).__name__}")
        optional = {"reasoning": self.reasoning, "name": self.name, "tool_call_id": self.tool_call_id}
        for field_name, value in optional.items():
            if value is not None and not isinstance(value, str):
                raise ParameterError(field_name, f"must be a string, not {type(value).__name__}")
        if self.tool_calls and self.role != "assistant":
            raise ParameterError("tool_calls", f"only an assistant's message has them, and this one is of {self.role}")
