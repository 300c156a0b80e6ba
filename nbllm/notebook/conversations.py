"""The conversations of a notebook, and which of them a cell goes on with.

A question first chooses its place, which changes nothing; only an answer is recorded there.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.markup.characters import normalized
from nbllm.notebook.tree import Tree, Turn
from nbllm.session.watchers import Watchers

if TYPE_CHECKING:
    from nbllm.core import FinishReason, Message

_MAX_NAME_LENGTH = 100
_UNNAMED = re.compile(r"chat-([0-9]+)")


class _Use(NamedTuple):
    """That a run of a cell asked in a tree; without a cell, that the tree was taken up."""

    cell: str | None
    execution: int
    tree: Tree


class Conversations:
    """All conversations by name, in the order of their making; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._trees: dict[str, Tree] = {}
        self._forgotten: weakref.WeakSet[Tree] = weakref.WeakSet()
        self._uses: list[_Use] = []
        self._current: Tree | None = None
        self._watchers = Watchers()

    @property
    def current(self) -> Tree | None:
        """What a cell that says nothing else goes on with."""
        return self._current

    def names(self) -> list[str]:
        with self._lock:
            return list(self._trees)

    def trees(self) -> list[Tree]:
        with self._lock:
            return list(self._trees.values())

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called when the names are others, on the thread that made them so and with no lock held.

        Returns:
            what ends that; calling it twice is harmless.
        """
        return self._watchers.add(callback)

    def get(self, name: str) -> Tree:
        """Raises InvalidRequestError with the closest names when there is none of that name."""
        with self._lock:
            tree = self._trees.get(name.strip())
            return tree if tree is not None else _not_found(name, list(self._trees))

    def choose(
        self,
        *,
        name: str | None = None,
        system: str | None = None,
        default_system: str | None = None,
        new: bool = False,
        cell: str | None = None,
        execution: int = 0,
    ) -> tuple[Tree, Turn | None]:
        """The conversation that a cell asks in, and the turn that its question follows; None is the root.

        Nothing is changed, and the tree may be a draft that `record` or `commit` brings in.

        Args:
            system: a system message, "" for none, None for whatever the conversation has.
            default_system: what a conversation that begins here has when `system` is None.
            new: start afresh, in a conversation of its own or at the root of the named one.
            cell: the cell's id if the front end gives one.
            execution: the number of the cell's run.

        Raises:
            ParameterError: the name is not fit for one.
            InvalidRequestError: the named conversation has another system message.
        """
        with self._lock:
            first = system if system is not None else default_system
            if name is not None:
                tree = self._named(checked_name(name), system, new) or Tree(name.strip(), first, is_named=True)
            elif new:
                tree = self._begun_by(cell, execution, first) or Tree(self._free_name(), first)
            else:
                known = self._seen(system, cell, execution) or self._ongoing(system)
                tree = known or Tree(self._free_name(), first)
            return tree, tree.place(cell, execution)

    def commit(self, tree: Tree) -> Tree:
        """Make a chosen tree the current one, and return what holds its turns from now on.

        That is another tree if the chosen one restarts it, or if its name was taken while the question was asked.
        One that was forgotten in the meantime stays so.
        """
        return self._taken_up(tree, None, 0)

    def record(
        self,
        tree: Tree,
        parent: Turn | None,
        question: Message,
        answer: Message,
        *,
        cell: str | None = None,
        execution: int = 0,
        finish_reason: FinishReason = "stop",
        model: str = "",
        beginning: Iterable[Message] | None = None,
    ) -> Turn:
        """Add an answer where `choose` said, and make its conversation the current one."""
        return self._taken_up(tree, cell, execution).add(
            question,
            answer,
            parent=parent,
            cell=cell,
            execution=execution,
            finish_reason=finish_reason,
            model=model,
            beginning=beginning,
        )

    def record_longer(
        self,
        tree: Tree,
        turn: Turn,
        answer: Message,
        *,
        cell: str | None = None,
        execution: int = 0,
        finish_reason: FinishReason = "stop",
        model: str = "",
    ) -> Turn:
        """Replace the answer of `turn` by one that goes on from it, which `cell` asked for.

        The new turn still belongs to the cell that asked the question, which branches before it when it runs again.
        """
        target = self._taken_up(tree, cell, execution)
        return target.replace_last(answer, finish_reason=finish_reason, model=model, turn=turn)

    def rename(self, tree: Tree, name: str) -> None:
        """Give a conversation the name that a person chose, which keeps its place among the others.

        One that holds no answer yet is kept from now on, or another could take the name before it does.

        Raises:
            ParameterError: the name is not fit for one.
            InvalidRequestError: it is another conversation's.
        """
        name = checked_name(name)
        with self._changing():
            tree = tree.taken_into or tree
            if self._trees.get(name) is not tree:
                self._refuse_taken(name)
            if tree not in self._forgotten:
                self._trees = {name if one is tree else key: one for key, one in self._trees.items()}
                self._trees.setdefault(name, tree)
            tree.name, tree.is_named = name, True
        tree.tell()

    def reset(self, name: str | None = None) -> list[str]:
        """Forget one conversation or all, and return their names. After the current one the next cell starts afresh.

        Raises:
            InvalidRequestError: there is none of that name.
        """
        with self._changing():
            gone = list(self._trees.values()) if name is None else [self.get(name)]
            for tree in gone:
                del self._trees[tree.name]
                self._forgotten.add(tree)
            self._uses = [use for use in self._uses if use.tree not in self._forgotten]
            if self._current in gone:
                self._current = None
            return [tree.name for tree in gone]

    def save(self, tree: Tree, path: str | os.PathLike[str]) -> Path:
        """Write the active path of a conversation as JSON lines of OpenAI's messages, and return the file.

        Stale turns are not written: the format knows no branches.

        Raises:
            InvalidRequestError: there is nothing to save, the place is not writable, or something else is there.
        """
        from nbllm.notebook.saved import write

        tree = tree.taken_into or tree
        messages = tree.messages(tree.head)
        if not messages:
            raise InvalidRequestError(f"the conversation {_label(tree.name)} has nothing to save yet")
        return write(path, messages)

    def open(self, path: str | os.PathLike[str], name: str | None = None) -> Tree:
        """Read a saved conversation, named after its file unless a name is given, and make it the current one.

        Raises:
            InvalidRequestError: it cannot be read, is damaged, or its name is taken; nothing is changed.
        """
        from nbllm.notebook.saved import read

        name = checked_name(_name_of_file(path) if name is None else name)
        self._refuse_taken(name)
        return self.begin(name, read(path))

    def begin(self, name: str, messages: Sequence[Message]) -> Tree:
        """Make messages a conversation of this name, and the current one.

        Raises:
            InvalidRequestError: the name is taken.
        """
        tree = Tree.of_messages(name, messages)
        with self._changing():
            self._refuse_taken(name)
            return self._take_up(tree, None, 0)

    # ---- inside

    def _named(self, name: str, system: str | None, new: bool) -> Tree | None:
        tree = self._trees.get(name)
        if tree is None or new:
            return tree and tree.restarted(system)
        if system is not None and not _has(tree, system):
            has = f"the system message {_label(tree.system)}" if tree.system else "no system message"
            raise InvalidRequestError(
                f"the conversation {name!r} has {has}: leave out -s to go on with it, "
                "add --new to start it afresh, or give another name with -c"
            )
        return tree

    def _begun_by(self, cell: str | None, execution: int, system: str | None) -> Tree | None:
        """A new beginning of the unnamed conversation that an earlier run of the cell began."""
        for tree in self._trees.values():
            if not tree.is_named and _was_begun_by(tree, cell, execution):
                return tree.restarted(system or "")
        return None

    def _seen(self, system: str | None, cell: str | None, execution: int) -> Tree | None:
        """Where this run of the cell asked last, or where its run before began."""
        if cell is None:
            return None
        uses = [use for use in self._uses if use.cell == cell and (system is None or _has(use.tree, system))]
        if not uses:
            return None
        last = uses[-1]
        if last.execution == execution:
            return last.tree
        return next(use.tree for use in uses if use.execution == last.execution)

    def _ongoing(self, system: str | None) -> Tree | None:
        if system is None:
            return self._current
        latest = (use.tree for use in reversed(self._uses) if not use.tree.is_named and _has(use.tree, system))
        return next(latest, None)

    def _free_name(self) -> str:
        numbers = [int(match[1]) for match in map(_UNNAMED.fullmatch, self._trees) if match]
        return f"chat-{max(numbers, default=0) + 1}"

    def _taken_up(self, tree: Tree, cell: str | None, execution: int) -> Tree:
        with self._changing():
            target = self._take_up(tree, cell, execution)
        if target is not tree:  # outside of the lock, for it calls those who watch
            target.restart(tree)
        return target

    def _take_up(self, tree: Tree, cell: str | None, execution: int) -> Tree:
        target = self._registered(tree)
        if target is not tree:
            tree.taken_into = target
        if target not in self._forgotten:
            self._current = target
            self._uses.append(_Use(cell, execution, target))
        return target

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Under the lock; those who watch are told after it, if the names are others then."""
        with self._lock:
            before = list(self._trees)
            yield
            is_told = before != list(self._trees)
        if is_told:
            self._watchers.tell("the names of conversations")

    def _registered(self, tree: Tree) -> Tree:
        if tree.taken_into is not None:
            return tree.taken_into
        if tree in self._forgotten:
            return tree
        holder = self._trees.get(tree.name)
        if holder is not None and holder is not tree:
            if tree.is_named:
                return holder
            tree.name = self._free_name()
        self._trees[tree.name] = tree
        return tree

    def _refuse_taken(self, name: str) -> None:
        if name in self._trees:
            raise InvalidRequestError(
                f"there is a conversation {name!r} already: give another name, or forget that one first "
                "(%llm reset NAME)"
            )


def checked_name(name: str) -> str:
    """A name that a person typed for a conversation, without spaces around it. Raises ParameterError for a bad one."""
    name = name.strip()
    if not name:
        raise ParameterError("conversation", "the name is empty; give one such as draft")
    if len(name) > _MAX_NAME_LENGTH:
        raise ParameterError(
            "conversation", f"the name has {len(name):,} characters; give one of at most {_MAX_NAME_LENGTH}"
        )
    if name != normalized(name) or "\n" in name or "\t" in name:
        raise ParameterError("conversation", f"the name {name!r} has control characters; leave them out")
    return name


def _name_of_file(path: str | os.PathLike[str]) -> str:
    stem = Path(path).stem
    if not stem:
        raise InvalidRequestError(f"{os.fspath(path)!r} is no file; give the path of a saved conversation")
    return stem


def _has(tree: Tree, system: str) -> bool:
    return tree.system == (system or None)


def _was_begun_by(tree: Tree, cell: str | None, execution: int) -> bool:
    """Whether another run of the cell began the tree, or nothing did yet."""
    roots = [turn for turn in tree.turns if turn.parent is None]
    if not roots:
        return True
    own = [turn for turn in roots if turn.cell == cell]
    return cell is not None and roots[0].cell == cell and own[-1].execution != execution


def _not_found(name: str, names: list[str]) -> NoReturn:
    if not names:
        raise InvalidRequestError(f"no conversation {_label(name)}, nor any other: ask something with %%chat first")
    import difflib

    close = difflib.get_close_matches(name[:_MAX_NAME_LENGTH], names, n=3, cutoff=0.4) or names
    more = f" and {len(close) - 5:,} more" if len(close) > 5 else ""
    raise InvalidRequestError(f"no conversation {_label(name)}; the closest names: {', '.join(close[:5])}{more}")


def _label(text: str | None, length: int = 60) -> str:
    """A text in quotes for an error of one line."""
    text = text or ""
    return repr(text if len(text) <= length else f"{text[: length - 1]}…")
