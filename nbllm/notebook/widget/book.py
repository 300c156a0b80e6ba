"""Where a chat's turns are kept: among the notebook's conversations, or in an `nbllm.Conversation`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from nbllm.errors import InvalidRequestError
from nbllm.notebook.conversations import checked_name
from nbllm.notebook.tree import Tree, Turn

if TYPE_CHECKING:
    from nbllm.core import FinishReason, Message
    from nbllm.notebook.conversations import Conversations
    from nbllm.session.conversation import Conversation


class Book(Protocol):
    """The conversation that a chat shows, and the others that it could show. Any thread may use it."""

    @property
    def name(self) -> str: ...
    @property
    def tree(self) -> Tree:
        """Of the conversation that is shown; another one after `new` and `open`."""

    def record(
        self,
        parent: Turn | None,
        question: Message,
        answer: Message,
        *,
        finish_reason: FinishReason,
        model: str,
        beginning: Iterable[Message] | None = None,
    ) -> Turn:
        """Keep an answer under `parent`, as `Tree.add` does."""

    def conversations(self) -> list[str]:
        """Names that `open` takes, the present one's among them."""

    def rename(self, name: str) -> None:
        """Raises InvalidRequestError when the name is taken or not fit for one."""

    def new(self, system: str | None) -> None:
        """Begin a conversation; with None it has the system message that new ones have."""

    def open(self, name: str) -> None:
        """Raises InvalidRequestError with the closest names when there is none of that name."""

    def close(self) -> None:
        """Stop to follow what others say. Twice is harmless."""


class _OneTree:
    """What shows `_tree`."""

    _tree: Tree

    @property
    def name(self) -> str:
        return self._tree.name

    @property
    def tree(self) -> Tree:
        return self._tree


class TreeBook(_OneTree):
    """One of the notebook's conversations, which `%%chat` goes on with: what one says the other sees.

    Args:
        tree: which; None is the current one, or a new one where there is none.
        default_system: the system message of those that begin here without one of their own.
    """

    def __init__(
        self, conversations: Conversations, tree: Tree | None = None, *, default_system: str | None = None
    ) -> None:
        self._conversations, self._default_system = conversations, default_system
        if tree is None:
            tree, _ = conversations.choose(default_system=default_system)
        self._tree = conversations.commit(tree)

    def record(
        self,
        parent: Turn | None,
        question: Message,
        answer: Message,
        *,
        finish_reason: FinishReason,
        model: str,
        beginning: Iterable[Message] | None = None,
    ) -> Turn:
        return self._conversations.record(
            self._tree, parent, question, answer, finish_reason=finish_reason, model=model, beginning=beginning
        )

    def conversations(self) -> list[str]:
        names = self._conversations.names()
        return names if self.name in names else [*names, self.name]  # after `%llm reset` it is still shown here

    def rename(self, name: str) -> None:
        self._conversations.rename(self._tree, name)

    def new(self, system: str | None) -> None:
        tree, _ = self._conversations.choose(system=system, default_system=self._default_system, new=True)
        self._tree = self._conversations.commit(tree)

    def open(self, name: str) -> None:
        self._tree = self._conversations.commit(self._conversations.get(name))

    def close(self) -> None:
        """Nothing is followed here."""


class ConversationBook(_OneTree):
    """An `nbllm.Conversation` with branches: its history is always the active path of the tree.

    What is said with `Conversation.send` becomes a turn, and what `undo` takes out there stays as a stale turn.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._in_step = conversation.history
        self._tree = Tree.of_messages(conversation.name or "conversation", self._in_step)
        self._unwatch = (self._tree.watch(self._push), conversation.watch(self._pull))
        self._pull()  # what was said since the history was read

    def record(
        self,
        parent: Turn | None,
        question: Message,
        answer: Message,
        *,
        finish_reason: FinishReason,
        model: str,
        beginning: Iterable[Message] | None = None,
    ) -> Turn:
        return self._tree.add(
            question, answer, parent=parent, finish_reason=finish_reason, model=model, beginning=beginning
        )

    def conversations(self) -> list[str]:
        return [self.name]

    def rename(self, name: str) -> None:
        self._conversation.name = self._tree.name = checked_name(name)
        self._tree.tell()

    def new(self, system: str | None) -> None:
        """Begin anew in the same object; what was said stays, stale."""
        self._tree.restart(self._tree.restarted(system))

    def open(self, name: str) -> None:
        if name.strip() != self.name:
            raise InvalidRequestError(
                f"this chat shows one nbllm.Conversation, {self.name}; ChatWidget() without one opens those of %%chat"
            )

    def close(self) -> None:
        for unwatch in self._unwatch:
            unwatch()

    # ---- in step

    def _pull(self) -> None:
        """The history changed: here, which is nothing new, or by somebody who spoke."""
        with self._tree.changing():
            history = self._conversation.history
            if history != self._in_step:
                self._in_step = history
                self._go_to(history)

    def _push(self) -> None:
        """The tree changed: its active path becomes the history. What was said there meanwhile is kept as a branch."""
        while True:
            with self._tree.changing():
                before = self._conversation.history
                if before != self._in_step:
                    self._in_step = before  # kept here: who is told of that need not do it again
                    head = self._tree.head
                    self._go_to(before)
                    self._back_to(head)
                    continue
                self._in_step = after = tuple(self._tree.messages(self._tree.head))
            if before == after or self._conversation.swap(before, after):
                return

    def _go_to(self, history: Iterable[Message]) -> None:
        """Make the history the active path, with turns that are there as far as there are such."""
        said = Tree.of_messages(self.name, tuple(history))
        children: dict[Turn | None, list[Turn]] = {}
        for turn in self._tree.turns:
            children.setdefault(turn.parent, []).append(turn)
        last: Turn | None = None
        for turn in said.turns:
            is_last = turn is said.head
            known = [child for child in children.get(last, ()) if _is_same(child, turn, is_last)]
            last = known[-1] if known else self._added(turn, last)
        if last is None:
            self._tree.restart(said)
        else:
            self._tree.goto(last, exactly=True)

    def _added(self, turn: Turn, parent: Turn | None) -> Turn:
        return self._tree.add(turn.question, turn.answer, parent=parent, after=turn.after, beginning=turn.beginning)

    def _back_to(self, head: Turn | None) -> None:
        if head is None:
            self._tree.restart(self._tree.restarted())
        else:
            self._tree.goto(head, exactly=True)


def _is_same(one: Turn, other: Turn, is_last: bool) -> bool:
    """Whether they say the same; what is sent depends on what the last one begins with."""
    said = (one.question, one.answer, one.after) == (other.question, other.answer, other.after)
    return said and (not is_last or one.beginning == other.beginning)
