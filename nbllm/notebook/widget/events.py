"""What a `Talk` tells while it asks and is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nbllm.core import Chunk, Message
    from nbllm.notebook.tree import Turn
    from nbllm.notebook.widget.attachments import Attachment
    from nbllm.session.response import Response

PhaseName = Literal["idle", "loading", "waiting", "answering", "closed"]


@dataclass(frozen=True, slots=True)
class Begun:
    """A question is on its way.

    Attributes:
        live: names the answer until it is a turn.
        question: as it is sent, with the text of its files in it.
        parent: the turn that it follows, None at the root.
        attachments: the names of its files.
    """

    live: str
    question: Message
    parent: Turn | None
    attachments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Phase:
    """What is going on now; `detail` says more of it to a person."""

    phase: PhaseName
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Came:
    """A piece of the answer, with text or reasoning in it."""

    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is whole, stopped or failed. It follows each Begun, with the same `live`.

    Attributes:
        turn: what it became; None when not a word was answered.
        response: None when the model was not asked at all.
        error: one line that says what to do, "" without one. What came before a failure is a turn nevertheless.
        draft: what was typed, when there is no turn that has it: the composer should get it back.
        attachments: and the files that were sent with it.
    """

    live: str
    turn: Turn | None
    response: Response | None
    error: str = ""
    draft: str = ""
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """The conversation is another one, or not what it was: a cell spoke in it, a branch was taken, it was renamed."""


Event = Begun | Phase | Came | Ended | Changed
