"""The options of a chat's questions: those of `Model.chat` that fit, and the system message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbllm.core import Message
from nbllm.errors import ParameterError
from nbllm.session.requests import Options

if TYPE_CHECKING:
    from nbllm.core import GenerateRequest

_NOT_HERE = {
    "continue_final": "a chat answers each question anew; ask for the answer again instead",
    "n": "a chat shows one answer; ask for it again to have another",
    "tools": "a chat calls no functions; Model.chat(..., tools=...) in a cell shows what would be called",
}


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What was set and is not the default. Make one with `of`, which checks."""

    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ChatOptions:
        """Those that are not None. Raises ParameterError for one that is unknown or out of range."""
        given = {name: value for name, value in values.items() if value is not None}
        Options.of(given).chat("?")
        for name, reason in _NOT_HERE.items():
            if given.get(name) and (name != "n" or given[name] != 1):
                raise ParameterError(name, reason)
        return cls(given)

    def changed(self, values: Mapping[str, Any], own_system: str | None) -> ChatOptions:
        """With other values for some; None is the default.

        Args:
            own_system: what the conversation began with. It takes the place of a system message that was set, which
                the turns that were asked with it would hand on otherwise.
        """
        merged = {**self.values, **values}
        if merged.get("system") is None and "system" in self.values:
            merged["system"] = own_system or ""
        return self.of(merged)

    def for_another(self) -> ChatOptions:
        """For another conversation, which has a system message of its own."""
        return ChatOptions({name: value for name, value in self.values.items() if name != "system"})

    def beginning(self, known: tuple[Message, ...]) -> tuple[Message, ...]:
        """What a question is sent with in a place that begins with `known`."""
        system = self.values.get("system")
        if system is None:
            return known
        rest = known[1:] if known and known[0].role == "system" else known
        return (Message("system", system), *rest) if system else rest

    def request(self, messages: Iterable[Message]) -> GenerateRequest:
        """Of messages that begin as `beginning` says."""
        return Options.of(self.for_another().values).chat([*messages])
