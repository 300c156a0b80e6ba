"""Conversations for a reader: as plain text for a terminal, and as a Markdown table in which every text is literal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from nbllm.markup.characters import plain_text
from nbllm.markup.safe import literal_markdown

if TYPE_CHECKING:
    from nbllm.notebook.conversations import Conversations
    from nbllm.notebook.tree import Tree, Turn

_WIDTH = 60
_MAX_DEPTH = 8
"""Branches of branches beyond this are indented no further."""


class _Row(NamedTuple):
    turn: Turn
    depth: int
    state: str


def render(tree: Tree) -> tuple[str, str]:
    """The turns of one conversation, one a line: plain text, and Markdown.

    A branch that was left is indented, above the turn that took its place.
    """
    rows = list(_rows(tree))
    title = f"{brief(tree.name, 100)}: {_summary(tree)}"
    if not rows:
        return title, inert(title)
    width = len(str(len(rows)))
    plain = [title, *(_plain_line(row, width) for row in rows)]
    table = ["| turn | cell | question | answer | |", "| :-- | :-- | :-- | :-- | :-- |"]
    markdown = [inert(title), "", *table, *map(_markdown_line, rows)]
    return "\n".join(plain), "\n".join(markdown)


def overview(conversations: Conversations) -> tuple[str, str]:
    """All conversations, one a line: plain text, and Markdown."""
    trees, current = conversations.trees(), conversations.current
    if not trees:
        text = "no conversations yet: ask something with %%chat"
        return text, inert(text)
    lines = [(brief(tree.name, 100), _summary(tree), "current" if tree is current else "") for tree in trees]
    plain = [_joined(f"{name}: {summary}", state) for name, summary, state in lines]
    table = ["| conversation | holds | |", "| :-- | :-- | :-- |"]
    rows = [f"| {inert(name)} | {inert(summary)} | {_state(state)} |" for name, summary, state in lines]
    return "\n".join(plain), "\n".join([*table, *rows])


def brief(text: str, width: int = _WIDTH) -> str:
    """The beginning of a text, on one line."""
    start = text[: 20 * width]  # a text may be of any length, and most of it is not shown
    line = " ".join(plain_text(start).split())
    if len(line) <= width and len(start) == len(text):
        return line
    return f"{line[: width - 1].rstrip()}…"


def inert(text: str) -> str:
    """Markdown, for a line or a table's cell, in which every character of `text` means itself."""
    return literal_markdown(plain_text(text))


def _rows(tree: Tree) -> Iterator[_Row]:
    head = tree.head  # before the turns, so that they hold it
    children: defaultdict[Turn | None, list[Turn]] = defaultdict(list)
    for turn in tree.turns:
        children[turn.parent].append(turn)
    active = set(tree.path(head)) if head is not None else set()
    waiting = [(turn, depth) for turn, depth in _below(children[None], active, 0)]
    while waiting:  # no recursion: branches may nest deeper than Python's stack
        turn, depth = waiting.pop()
        yield _Row(turn, depth, _marks(turn, is_stale=turn not in active, is_head=turn is head))
        waiting += _below(children[turn], active, depth)


def _below(siblings: list[Turn], active: set[Turn], depth: int) -> Iterator[tuple[Turn, int]]:
    """The siblings, last to first: the one that counts, then those it replaced, a step further in."""
    if not siblings:
        return
    main = next((turn for turn in siblings if turn in active), siblings[-1])
    yield main, depth
    for turn in reversed(siblings):
        if turn is not main:
            yield turn, depth + 1


def _marks(turn: Turn, *, is_stale: bool, is_head: bool) -> str:
    marks: list[str] = [] if turn.finish_reason == "stop" else [turn.finish_reason]
    marks += ["stale"] * is_stale + ["current"] * is_head
    return ", ".join(marks)


def _summary(tree: Tree) -> str:
    total, active = len(tree.turns), len(tree.path())
    parts = [counted(active, "turn")] if total else ["no turns yet"]
    parts += [f"{total - active} stale"] if total > active else []
    parts += [f"system: {brief(tree.system)}"] if tree.system else []
    return " · ".join(parts)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plain_line(row: _Row, width: int) -> str:
    indent = "    " * min(row.depth, _MAX_DEPTH)
    question, answer = _texts(row.turn)
    return _joined(f"{indent}{row.turn.number:>{width}} {_cell(row.turn)} {question} → {answer}", row.state)


def _markdown_line(row: _Row) -> str:
    question, answer = _texts(row.turn)
    number = "↳ " * min(row.depth, _MAX_DEPTH) + str(row.turn.number)
    cells: Iterable[str] = (number, inert(_cell(row.turn)), inert(question), inert(answer), _state(row.state))
    return f"| {' | '.join(cells)} |"


def _cell(turn: Turn) -> str:
    return f"[{turn.execution or ' '}]"


def _texts(turn: Turn) -> tuple[str, str]:
    return brief(turn.question.content), brief(turn.answer.content) or "(no text)"


def _joined(line: str, state: str) -> str:
    return f"{line}  ({state})" if state else line


def _state(state: str) -> str:
    return f"*{state}*" if state else ""
