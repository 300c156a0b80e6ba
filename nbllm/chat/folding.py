"""What can be done to messages that a template refuses, from the least change to the most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from nbllm.core import ToolCall

_SYSTEM = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Turn:
    """A message on its way through a template, its control texts swapped for marks, but for those of its calls.

    Attributes:
        index: of the message in the request; -1 when the turn is not one of them as it was.
        call_id: of the call that the turn answers.
    """

    index: int
    role: str
    content: str
    reasoning: str | None = None
    name: str | None = None
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A form of the messages, and what was done to get it, in words."""

    turns: tuple[Turn, ...]
    notes: tuple[str, ...] = ()


def candidates(turns: Sequence[Turn]) -> Iterator[Candidate]:
    """The messages as they are, then changed by more and more."""
    seen: set[tuple[Turn, ...]] = set()
    for changes in _CHANGES:
        candidate = Candidate(tuple(turns))
        for change in changes:
            candidate = change(candidate)
        if candidate.turns not in seen:
            seen.add(candidate.turns)
            yield candidate


def developer_as_system(candidate: Candidate) -> Candidate:
    turns = tuple(replace(turn, role="system") if turn.role == "developer" else turn for turn in candidate.turns)
    return _changed(candidate, turns, "the role developer given as system: the template does not take it")


def merge(candidate: Candidate) -> Candidate:
    """Join neighbours of one role; a tool's results stay apart."""
    merged: list[Turn] = []
    for turn in candidate.turns:
        if merged and merged[-1].role == turn.role != "tool":
            merged[-1] = _joined(merged[-1], turn)
        else:
            merged.append(turn)
    count = len(candidate.turns) - len(merged)
    note = f"{count + 1 if count == 1 else count} {'consecutive' if count == 1 else 'times consecutive'} turns merged"
    return _changed(candidate, tuple(merged), f"{note}: the template wants the roles to alternate")


def fold_later(candidate: Candidate) -> Candidate:
    """Fold the system messages that do not stand at the beginning."""
    turns = _folded(candidate.turns, keep_first=True)
    return _changed(
        candidate, turns, "a later system message folded into the next user turn: the template takes only a first one"
    )


def fold(candidate: Candidate) -> Candidate:
    """Fold every system message into the user turn that follows it."""
    first_only = all(turn.role not in _SYSTEM for turn in candidate.turns[1:])
    place = "the first user turn" if first_only else "the user turns that follow"
    message = "system message" if first_only else "system messages"
    turns = _folded(candidate.turns, keep_first=False)
    return _changed(candidate, turns, f"{message} folded into {place}: the template refuses one")


def _changed(candidate: Candidate, turns: tuple[Turn, ...], note: str) -> Candidate:
    return candidate if turns == candidate.turns else Candidate(turns, (*candidate.notes, note))


def _folded(turns: Sequence[Turn], *, keep_first: bool) -> tuple[Turn, ...]:
    folded: list[Turn] = []
    waiting: Turn | None = None
    for position, turn in enumerate(turns):
        if turn.role in _SYSTEM and not (keep_first and position == 0):
            waiting = turn if waiting is None else _joined(waiting, turn)
        elif turn.role == "user" and waiting is not None:
            folded.append(replace(_joined(waiting, turn), role="user"))
            waiting = None
        else:
            folded.append(turn)
    return tuple(folded if waiting is None else [*folded, replace(waiting, role="user")])


def _joined(first: Turn, second: Turn) -> Turn:
    return Turn(
        index=-1,
        role=second.role,
        content="\n\n".join(text for text in (first.content, second.content) if text),
        reasoning=second.reasoning or first.reasoning,
        name=second.name or first.name,
        calls=first.calls + second.calls,
        call_id=second.call_id,
    )


_Change = Callable[[Candidate], Candidate]
_CHANGES: tuple[tuple[_Change, ...], ...] = (
    (),
    (developer_as_system,),
    (developer_as_system, merge),
    (developer_as_system, fold_later),
    (developer_as_system, fold_later, merge),
    (developer_as_system, fold),
    (developer_as_system, fold, merge),
)
