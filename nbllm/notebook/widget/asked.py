"""A question of a chat, in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbllm.core import Message
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.notebook.widget.attachments import as_text, split

if TYPE_CHECKING:
    from nbllm.core import GenerateRequest
    from nbllm.notebook.tree import Turn
    from nbllm.notebook.widget.attachments import Attachment
    from nbllm.session.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question in its place.

    Attributes:
        live: names the answer until it is a turn.
        parent: the turn that it follows.
        beginning: what is sent before the first turn.
        request: all that is sent, the question at the end.
        model: what is to answer: a model, the name of one, or None for the default.
        draft: what a person typed for it; "" when the question is a turn's.
        attachments: files that were sent with the draft.
    """

    live: str
    question: Message
    parent: Turn | None
    beginning: tuple[Message, ...]
    request: GenerateRequest
    model: Model | str | None
    draft: str = ""
    attachments: tuple[Attachment, ...] = ()


def typed_question(text: str, files: tuple[Attachment, ...] = ()) -> Message:
    """What a person typed, with files. Raises InvalidRequestError when there is nothing in it."""
    _check_text(text)
    return _checked(as_text(text, files))


def edited_question(old: Message, text: str) -> Message:
    """Another text in the place of a question's, with the files that it has. Raises as `typed_question` does."""
    _check_text(text)
    typed, names = split(old.content)
    if not names:
        return _checked(as_text(text))
    files = old.content[len(typed) :].removeprefix("\n\n")
    return _checked(f"{text}\n\n{files}" if text else files)


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise ParameterError("text", f"must be a string, not {type(text).__name__}")


def _checked(content: str) -> Message:
    if not content.strip():
        raise InvalidRequestError("the question is empty: type something to ask")
    return Message("user", content)
