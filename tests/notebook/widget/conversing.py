"""Chats to show, save and export."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nbllm.core import Message
from nbllm.notebook.tree import Tree, Turn


def tree_of(*pairs: tuple[str, str], name: str = "chat-1", system: str | None = None, **kept: Any) -> Tree:
    """A tree of one path.

    Args:
        kept: what every turn has besides.
    """
    tree = Tree(name, system)
    for question, answer in pairs:
        tree.add(Message("user", question), Message("assistant", answer), parent=tree.head, **kept)
    return tree


def attacked(attacks: Iterable[str]) -> list[Turn]:
    """A path in which everything that has a text attacks."""
    tree = Tree("evil", "".join(attacks))
    for attack in attacks:
        tree.add(
            Message("user", attack),
            Message("assistant", attack, reasoning=attack),
            parent=tree.head,
            model=attack,
            finish_reason="interrupted",
            after=[Message("tool", attack, tool_call_id="x"), Message("system", attack)],
        )
    return tree.path()
