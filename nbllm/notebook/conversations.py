"""The conversations of a notebook: cells that name the same model and system message go on with the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbllm.session.conversation import Conversation
    from nbllm.session.model import Model


class Conversations:
    """One conversation a model and system message, in the order the cells ran."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str | None], Conversation] = {}

    def current(self, model: Model, system: str | None) -> Conversation:
        """The conversation to go on with; it outlives a model that was closed and loaded again."""
        from nbllm.session.conversation import Conversation

        key = _key(model, system)
        known = self._by_key.get(key)
        if known is None:
            known = Conversation(model, system=system)
        elif known.model is not model:
            known = Conversation(model, history=known.history)
        self._by_key[key] = known
        return known

    def forget(self, model: Model, system: str | None) -> None:
        """Let the next cell start afresh."""
        self._by_key.pop(_key(model, system), None)


def _key(model: Model, system: str | None) -> tuple[str, str | None]:
    return model.info.model.path, system
