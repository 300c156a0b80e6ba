"""What is asked: templates and message lists, filled from the rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nbllm.core import Message
from nbllm.errors import NbllmError, ParameterError
from nbllm.frames.templates import RowTemplate
from nbllm.session.requests import Prompt, messages

_NAME_LENGTH = 40
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One prompt of a comparison, as it was given and as rows fill it.

    Attributes:
        source: as a manifest keeps it: a template's text, or messages.
    """

    name: str
    source: str | list[dict[str, Any]]
    turns: tuple[tuple[Message, RowTemplate | None], ...]

    def filled(self, row: Row) -> tuple[Message, ...] | None:
        """The messages for a row; None when it lacks a value that they use."""
        filled: list[Message] = []
        for message, template in self.turns:
            content = message.content if template is None else template.render(row)
            if content is None:
                return None
            filled.append(replace(message, content=content))
        return tuple(filled)


def templates_of(prompts: Any, columns: Sequence[str] | None) -> list[PromptTemplate]:
    """The prompts of a comparison.

    A text is a template. Without a table, the texts of a list and all messages are taken as they are.

    Args:
        columns: of the table; None when there is none.

    Raises:
        InvalidRequestError: a prompt is none, is empty, or names a column that is not there.
    """
    if isinstance(prompts, Mapping) and not _is_message(prompts):
        named = [(_checked_name(name), prompt) for name, prompt in prompts.items()]
        fills = True
    else:
        listed = _listed(prompts)
        named = list(zip(_names(listed), listed, strict=True))
        fills = isinstance(prompts, str)
    if not named:
        raise ParameterError("prompts", "is empty: give at least one")
    return [_template(name, prompt, columns, fills=fills) for name, prompt in named]


def _listed(prompts: Any) -> list[Any]:
    if isinstance(prompts, str | Message | Mapping):
        return [prompts]
    if not isinstance(prompts, Iterable) or isinstance(prompts, bytes):
        raise ParameterError(
            "prompts", f"must be a text, a list, a dict of named templates or lists of messages, not {prompts!r:.100}"
        )
    listed = list(prompts)
    return [listed] if listed and all(isinstance(one, Message) or _is_message(one) for one in listed) else listed


def _template(name: str, prompt: Prompt, columns: Sequence[str] | None, *, fills: bool) -> PromptTemplate:
    try:
        turns = messages(prompt)
        is_filled = columns is not None or (fills and isinstance(prompt, str))
        pairs = [(turn, _row_template(turn.content, columns) if is_filled else None) for turn in turns]
    except NbllmError as error:
        raise ParameterError("prompts", f"{name!r:.60}: {error}") from error
    source = prompt if isinstance(prompt, str) and is_filled else [_as_dict(turn) for turn in turns]
    return PromptTemplate(name, source, tuple(pairs))


def _row_template(text: str, columns: Sequence[str] | None) -> RowTemplate:
    if columns is not None:
        return RowTemplate(text, columns)
    try:
        return RowTemplate(text, ())
    except NbllmError as error:
        raise ParameterError(
            "data", f"is missing, and the prompt has a place for it: give data=[{{'name': value}}, ...], "
            f"or double the braces to keep them ({error})"
        ) from error  # fmt: skip


def _as_dict(turn: Message) -> dict[str, Any]:
    if turn.tool_calls or turn.tool_call_id is not None:
        raise ParameterError("messages", "a comparison takes no tool calls; leave them out")
    named = {} if turn.name is None else {"name": turn.name}
    return {"role": turn.role, "content": turn.content, **named}


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and "role" in value and "content" in value


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ParameterError("prompts", f"a template's name must be a text, not {name!r:.100}")
    return name


def _names(prompts: Iterable[Any]) -> list[str]:
    """What each is shown as: how it begins, with a number where that is not enough to tell them apart."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for prompt in prompts:
        name = _beginning(prompt)
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _beginning(prompt: Any) -> str:
    last = prompt[-1] if isinstance(prompt, Sequence) and not isinstance(prompt, str) and prompt else prompt
    if isinstance(last, Mapping):
        last = last.get("content")
    text = " ".join(str(getattr(last, "content", last)).split())
    return text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
