"""The active path of a conversation, as the widget's `transcript`: a message for each question and each answer."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.markup.characters import normalized
from nbllm.markup.nodes import nodes
from nbllm.notebook.footer import ending, usage_line
from nbllm.notebook.widget.attachments import split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbllm.markup.nodes import Node
    from nbllm.notebook.tree import Tree, Turn
    from nbllm.session.response import Response

Message = dict[str, Any]


class _Noted(NamedTuple):
    live: str
    footer: str
    blocks: list[Node] | None


class Transcript:
    """Makes the messages; those of a turn that is shown already are not made again."""

    def __init__(self) -> None:
        self._noted: dict[Turn, _Noted] = {}
        self._answers: dict[Turn, Message] = {}

    def note(
        self, turn: Turn, response: Response, *, live: str, context_length: int, blocks: list[Node] | None = None
    ) -> None:
        """Remember what a turn of this widget's does not hold itself.

        Args:
            live: the id under which its answer came.
            blocks: of the answer's text, where the text was taken apart already.
        """
        self._noted[turn] = _Noted(live, usage_line(response, context_length), blocks)

    def of(self, tree: Tree, parent: Turn | None = None) -> list[Message]:
        """The messages of the path that is active now.

        Args:
            parent: what an answer on its way follows. If a cell has taken another branch meanwhile, the messages are
                those that lead to it.
        """
        path = tree.path()
        if parent is not None and parent not in path:
            path = tree.path(parent)
        branches = _branches(tree)
        self._answers = {turn: self._answers.get(turn) or self._answer(turn) for turn in path}
        messages = []
        for turn in path:
            messages += [_question(turn, branches[turn.parent]), self._answers[turn]]
        return messages

    def _answer(self, turn: Turn) -> Message:
        noted = self._noted.get(turn, _Noted("", "", None))
        text = turn.answer.content
        return {
            "id": f"{turn.number}a",
            "turn": turn.number,
            "role": "assistant",
            "text": normalized(text),
            "blocks": nodes(text) if noted.blocks is None else noted.blocks,
            "reasoning": normalized(turn.answer.reasoning or ""),
            "model": normalized(turn.model),
            "footer": normalized(noted.footer or ending(turn.finish_reason)),
            "ending": turn.finish_reason,
            "live": noted.live,
        }


def live_question(live: str, content: str) -> Message:
    """A question that no turn holds yet, as the message that it will be."""
    return {"id": f"{live}q", "turn": None, **_said(content), "branches": None}


def _question(turn: Turn, siblings: Iterable[int]) -> Message:
    turns = list(siblings)
    branches = {"index": turns.index(turn.number), "turns": turns} if len(turns) > 1 else None
    return {"id": f"{turn.number}q", "turn": turn.number, **_said(turn.question.content), "branches": branches}


def _said(content: str) -> Message:
    text, names = split(content)
    return {"role": "user", "text": normalized(text), "attachments": [{"name": normalized(name)} for name in names]}


def _branches(tree: Tree) -> dict[Turn | None, list[int]]:
    """The numbers of the turns that follow each turn, in one pass: a long conversation asks for all of them."""
    numbers: dict[Turn | None, list[int]] = defaultdict(list)
    for turn in tree.turns:
        numbers[turn.parent].append(turn.number)
    return numbers
