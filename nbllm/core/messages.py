"""A chat, turn by turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nbllm.errors import ParameterError

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    `reasoning` is what an assistant thought before it answered. `tokens` are the ids that the engine generated for
    `content`; they are spliced into the rendered prompt where the text still matches, because generated text does
    not always tokenize back to the ids it came from, and a different id would end the reuse of the cached prefix.
    """

    role: Role
    content: str
    reasoning: str | None = None
    name: str | None = None
    tokens: tuple[int, ...] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ParameterError("role", f"{self.role!r} is not one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise ParameterError("content", f"must be a string, not {type(self.content).__name__}")
        for field_name, value in (("reasoning", self.reasoning), ("name", self.name)):
            if value is not None and not isinstance(value, str):
                raise ParameterError(field_name, f"must be a string, not {type(value).__name__}")
