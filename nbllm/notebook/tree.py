"""One conversation as a tree of turns: a cell that runs again begins a branch, and what it said before stays.

The turns from a root to the head are the active path, which the next cell goes on with. All others are stale.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nbllm.errors import InvalidRequestError
from nbllm.session.watchers import Watchers

if TYPE_CHECKING:
    from nbllm.core import FinishReason, Message


@dataclass(frozen=True, eq=False, slots=True)
class Turn:
    """A question and its answer.

    Attributes:
        number: counts the turns of a tree in the order of their making, from 1.
        parent: the turn that stands before it; None begins a branch at the root.
        cell: the id of the cell that asked; None in a front end that has none, and in an opened file.
        execution: the number of the cell's run, 0 in an opened file. Turns of one run follow each other.
        beginning: what is said before the root, a system message mostly, when this turn is the last of what is sent.
        after: messages of an opened file that stand behind the answer and are no turn.
    """

    question: Message
    answer: Message
    number: int
    parent: Turn | None = field(default=None, repr=False)
    cell: str | None = None
    execution: int = 0
    finish_reason: FinishReason = "stop"
    model: str = ""
    beginning: tuple[Message, ...] = field(default=(), repr=False)
    after: tuple[Message, ...] = ()


class Tree:
    """The turns of one conversation; any thread may use it.

    Args:
        system: the system message; "" is none, as None is.
        is_named: a person chose the name.

    Attributes:
        taken_into: the tree that a draft's turns go into, see `restarted`.
    """

    def __init__(self, name: str, system: str | None = None, *, is_named: bool = False) -> None:
        self.name, self.is_named = name, is_named
        self.taken_into: Tree | None = None
        self._lock = threading.RLock()
        self._turns: list[Turn] = []
        self._head: Turn | None = None
        self._beginning = _beginning(system)
        self._watchers = Watchers()
        self._depth, self._is_changed = 0, False

    @classmethod
    def of_messages(cls, name: str, messages: Sequence[Message]) -> Tree:
        """A named tree of one branch. What is no question with its answer keeps its place, before or after a turn."""
        tree = cls(name, is_named=True)
        beginning: list[Message] = []
        pairs: list[tuple[Message, Message, list[Message]]] = []
        rest = iter(range(len(messages)))
        for index in rest:
            if _is_turn(messages, index):
                pairs.append((messages[index], messages[next(rest)], []))
            else:
                (pairs[-1][2] if pairs else beginning).append(messages[index])
        tree._beginning = tuple(beginning)
        for question, answer, after in pairs:
            tree.add(question, answer, parent=tree.head, after=after)
        return tree

    def __repr__(self) -> str:
        return f"<Tree {self.name!r} of {len(self._turns)} turns>"

    @property
    def head(self) -> Turn | None:
        """The last turn of the active path; None before the first answer."""
        return self._head

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All of them, in the order of their making."""
        return tuple(self._turns)

    @property
    def beginning(self) -> tuple[Message, ...]:
        """What a branch from the root begins with."""
        return self._beginning

    @property
    def system(self) -> str | None:
        first = self._beginning[0] if self._beginning else None
        return first.content or None if first is not None and first.role == "system" else None

    def path(self, turn: Turn | None = None) -> list[Turn]:
        """The turns from the root to `turn`, or to the head."""
        chain = []
        last = turn if turn is not None else self._head
        while last is not None:
            chain.append(last)
            last = last.parent
        return chain[::-1]

    def is_stale(self, turn: Turn) -> bool:
        return not any(turn is active for active in self.path())

    def siblings(self, turn: Turn) -> tuple[Turn, ...]:
        """The turns that follow the same one as `turn` does, itself included, in the order of their making."""
        return tuple(other for other in self.turns if other.parent is turn.parent)

    def messages(self, parent: Turn | None, beginning: Iterable[Message] | None = None) -> list[Message]:
        """What is sent before a question that follows `parent`; None stands for the root.

        Args:
            beginning: what comes first, instead of what `parent` or the tree begins with.
        """
        if beginning is None:
            beginning = self._beginning if parent is None else parent.beginning
        messages = list(beginning)
        for turn in self.path(parent) if parent is not None else ():
            messages += (turn.question, turn.answer, *turn.after)
        return messages

    def place(self, cell: str | None, execution: int) -> Turn | None:
        """The parent of what this run of a cell asks next: the one that the cell's earlier run had, else the head."""
        with self._lock:
            if cell is not None:
                for turn in self.path():
                    if turn.cell == cell and turn.execution != execution:
                        return turn.parent
            return self._head

    def add(
        self,
        question: Message,
        answer: Message,
        *,
        parent: Turn | None,
        cell: str | None = None,
        execution: int = 0,
        finish_reason: FinishReason = "stop",
        model: str = "",
        after: Iterable[Message] = (),
        beginning: Iterable[Message] | None = None,
    ) -> Turn:
        """Put a turn under `parent`, which is where it was asked, and make it the head.

        Args:
            beginning: what the question was sent with instead of what `parent` begins with, and what goes on from here
                begins with: another system message, mostly.
        """
        with self.changing():
            if parent is not None:
                self._check_holds(parent)
            if beginning is None:
                beginning = self._beginning if parent is None else parent.beginning
            turn = Turn(
                question=question,
                answer=answer,
                number=len(self._turns) + 1,
                parent=parent,
                cell=cell,
                execution=execution,
                finish_reason=finish_reason,
                model=model,
                beginning=tuple(beginning),
                after=tuple(after),
            )
            self._turns.append(turn)
            self._move(turn)
            return turn

    def replace_last(
        self, answer: Message, *, finish_reason: FinishReason = "stop", model: str = "", turn: Turn | None = None
    ) -> Turn:
        """Give the question of the head, or of `turn`, another answer: a longer one. The turn before becomes stale.

        Raises:
            InvalidRequestError: there is no turn.
        """
        with self.changing():
            old = turn if turn is not None else self._head
            if old is None:
                raise InvalidRequestError(f"the conversation {self.name!r} has no answer to continue")
            return self.add(
                old.question,
                answer,
                parent=old.parent,
                cell=old.cell,
                execution=old.execution,
                finish_reason=finish_reason,
                model=model or old.model,
                after=old.after,
                beginning=old.beginning,
            )

    def undo(self) -> Turn:
        """Step back before the last turn, which becomes stale, and return it.

        Raises:
            InvalidRequestError: there is none.
        """
        with self.changing():
            undone = self._head
            if undone is None:
                raise InvalidRequestError(f"there is nothing to undo in the conversation {self.name!r}")
            self._move(undone.parent)
            return undone

    def goto(self, turn: Turn, *, exactly: bool = False) -> Turn:
        """Go on from the newest turn below `turn`, or from itself if none is below, and return the new head.

        Args:
            exactly: from `turn` itself, whatever follows it.
        """
        with self.changing():
            self._check_holds(turn)
            below = {turn}
            for later in self._turns[turn.number :] if not exactly else ():
                if later.parent in below:
                    below.add(later)
            self._move(max(below, key=lambda one: one.number))
            return self._head or turn

    def restarted(self, system: str | None = None) -> Tree:
        """A new beginning of this tree, which changes nothing here before `restart` is called with it.

        Args:
            system: another system message, "" for none; None keeps the present one.
        """
        draft = Tree(self.name, system, is_named=self.is_named)
        draft.taken_into = self
        if system is None:
            draft._beginning = self._beginning
        return draft

    def restart(self, draft: Tree) -> None:
        """Go on at the root, with what the draft begins with; every turn stays, stale."""
        with self.changing():
            self._beginning = draft.beginning
            self._move(None)

    # ---- those who watch

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after every change, on the thread that made it and with no lock held.

        Returns:
            what ends that; calling it twice is harmless.
        """
        return self._watchers.add(callback)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Make several changes one: no other thread comes between them, and those who watch are told once, after."""
        is_told = False
        try:
            with self._lock:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                    if not self._depth:
                        is_told, self._is_changed = self._is_changed, False
        finally:
            if is_told:
                self.tell()

    def tell(self) -> None:
        """Call those who watch; for a change from outside, such as of the name."""
        self._watchers.tell(f"the conversation {self.name!r}")

    # ---- inside, under the lock

    def _move(self, head: Turn | None) -> None:
        self._head, self._is_changed = head, True

    def _check_holds(self, turn: Turn) -> None:
        if turn.number > len(self._turns) or self._turns[turn.number - 1] is not turn:
            raise ValueError("the turn is one of another tree")


def _beginning(system: str | None) -> tuple[Message, ...]:
    from nbllm.core import Message

    return (Message("system", system),) if system else ()


def _is_turn(messages: Sequence[Message], index: int) -> bool:
    return [turn.role for turn in messages[index : index + 2]] == ["user", "assistant"]
