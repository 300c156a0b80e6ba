"""A chat as the output that stays in a notebook when its widget is gone: safe Markdown, and plain text beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from nbllm.frames.compare.formatting import shown
from nbllm.markup.characters import plain_text
from nbllm.markup.code import code_span
from nbllm.markup.cuts import without_middle
from nbllm.markup.reasoning import fold_reasoning
from nbllm.markup.safe import literal_markdown, safe_markdown
from nbllm.notebook.footer import quiet
from nbllm.notebook.history import brief, counted
from nbllm.notebook.widget.attachments import split

if TYPE_CHECKING:
    from nbllm.core import Message
    from nbllm.notebook.tree import Turn

MAX_BYTES = 2_000_000
"""Of both forms together as JSON: it is saved with the notebook, and read by whoever opens that."""

_MAX_CHARS = 50_000  # of one question or answer, without its middle
_MAX_CHARS_OF_OTHERS = 2_000  # of a message that is neither question nor answer
_MAX_OTHERS = 20
_MAX_NAMED = 20
_NOTE_BYTES = 1000
_LOAD = "%load_ext nbllm"  # a kernel that was just started does not know %llm
_DAY = re.compile(r"(\d{4})(\d\d)(\d\d)-.*")  # an id begins with it
_SPACES = re.compile("^ | (?= )", re.MULTILINE)  # HTML shows several as one
_ENDINGS = {
    "length": "cut short at the limit of tokens",
    "tool_calls": "asks for a tool",
    "interrupted": "stopped here",
    "timeout": "ended by the time limit",
    "error": "ended by an error",
}


class _Shown(NamedTuple):
    """One part of the transcript in both forms."""

    markdown: str
    plain: str

    @property
    def size(self) -> int:
        return len(msgspec.json.encode(self)) + 4


def bundle(title: str, path: Sequence[Turn], chat_id: str) -> dict[str, str]:
    """What the widget's output becomes.

    Args:
        title: the conversation's name.
        path: the turns of the active path; of a chat that is too long, the first are left out.
    """
    return Bundles().bundle(title, path, chat_id)


class Bundles:
    """Makes the bundles of one chat while it grows, and what stays of a turn only once. Not for several threads."""

    def __init__(self) -> None:
        self._made: dict[tuple[Turn, bool], _Shown] = {}

    def bundle(self, title: str, path: Sequence[Turn], chat_id: str) -> dict[str, str]:
        """As the function of that name."""
        head = _head(title, path, chat_id)
        if not path:
            return _both([head, _line("No messages yet."), _end("")])  # and nothing is kept that could be gone on with
        end = _end(chat_id)
        first = [head, *_others(path[-1].beginning)]
        turns = self._newest(path, MAX_BYTES - sum(part.size for part in (*first, end)) - _NOTE_BYTES)
        omitted = len(path) - len(turns)
        notes = [_line(f"Left out here, for length: {counted(omitted, 'earlier turn')}.")] if omitted else []
        return _both([*first, *notes, *turns, end])

    def _newest(self, path: Sequence[Turn], room: int) -> list[_Shown]:
        """The last turns that fit, and of the very last at least a part."""
        several = len({turn.model for turn in path}) > 1
        known, self._made = self._made, {}
        turns: list[_Shown] = []
        for turn in reversed(path):
            made = known.get((turn, several)) or _turn(turn, _MAX_CHARS, named=several)
            if made.size > room:
                break
            self._made[turn, several] = made
            turns.append(made)
            room -= made.size
        return turns[::-1] or [_shortened(path[-1], room, named=several)]


def _head(title: str, path: Sequence[Turn], chat_id: str) -> _Shown:
    began = _DAY.fullmatch(chat_id)
    when = "-".join(began.groups()) if began else ""
    models = list(dict.fromkeys(turn.model for turn in path if turn.model))
    others = [part for part in (_names(models), when) if part]
    name = brief(_one_line(title), 200) or "Chat"
    markdown = [f"**{literal_markdown(name)}**", *map(literal_markdown, others)]
    return _Shown(" · ".join(markdown), " · ".join([name, *others]))


def _end(chat_id: str) -> _Shown:
    what, command = ("this", f"%llm chat {_one_line(chat_id)}") if chat_id else ("a", "%llm chat")
    how, then = f"To go on with {what} chat, run a cell with", "and below it"
    markdown = f"*{how}* {code_span(_LOAD)} *{then}* {code_span(command)}"
    return _Shown(markdown, f"{how} {_LOAD} {then} {command}")


def _both(parts: Iterable[_Shown]) -> dict[str, str]:
    whole = _joined(parts)
    return {"text/markdown": whole.markdown, "text/plain": whole.plain}


def _joined(parts: Iterable[_Shown]) -> _Shown:
    parts = list(parts)
    return _Shown("\n\n".join(part.markdown for part in parts), "\n\n".join(part.plain for part in parts if part.plain))


def _shortened(turn: Turn, room: int, *, named: bool) -> _Shown:
    chars, made = _MAX_CHARS, _turn(turn, 0, named=named)
    while chars and (made := _turn(turn, chars, named=named)).size > room:
        chars //= 2
    return made


def _turn(turn: Turn, max_chars: int, *, named: bool) -> _Shown:
    answer = _answer(turn.answer, max_chars)
    notes = [_one_line(turn.model)] if named and turn.model else []
    notes += [ending] if (ending := _ENDINGS.get(turn.finish_reason)) else []
    notes += [f"calls {_names([call.name for call in turn.answer.tool_calls])}"] if turn.answer.tool_calls else []
    if not turn.answer.content.strip() and not notes:
        notes = ["no text"]
    return _joined(
        [
            _question(turn.question.content, max_chars),
            *([answer] if answer.markdown else []),
            *([_line(" · ".join(notes))] if notes else []),
            *_others(turn.after),
        ]
    )


def _answer(message: Message, max_chars: int) -> _Shown:
    text = without_middle(message.content, max_chars)
    thoughts = fold_reasoning(without_middle(message.reasoning or "", max_chars), done=True)
    return _Shown((thoughts + safe_markdown(text)).strip("\n"), plain_text(text).strip("\n"))


def _question(content: str, max_chars: int) -> _Shown:
    """As a quote in which every character means itself: what was pasted is as little to be trusted as an answer."""
    text, names = split(content)
    text = without_middle(text, max_chars)
    markdown, plain = _quote(text), "\n".join(f"> {line}".rstrip() for line in plain_text(text).strip("\n").split("\n"))
    if not names:
        return _Shown(markdown, plain)
    files = f"with {_names(names)}"
    return _Shown(f"{markdown}\n>\n> {quiet(files)}", f"{plain}\n> ({files})")


def _quote(text: str) -> str:
    lines = [_literal_line(line) for line in shown(text).strip("\n").split("\n")]
    # A line break within a paragraph, and none where an empty line ends one.
    breaks = ["<br>" if line and following else "" for line, following in zip(lines, [*lines[1:], ""], strict=True)]
    return "\n".join(f"> {line}{end}".rstrip() for line, end in zip(lines, breaks, strict=True))


def _literal_line(line: str) -> str:
    """Spaces at the beginning would make it a block of code, in which entities mean nothing."""
    kept = _SPACES.sub("\N{NO-BREAK SPACE}", line.rstrip())
    return literal_markdown(kept)


def _others(messages: Sequence[Message]) -> list[_Shown]:
    """Messages that are neither a question nor its answer: a system message, or what an opened file has besides."""
    parts = [_other(message) for message in messages[:_MAX_OTHERS]]
    omitted = len(messages) - len(parts)
    return [*parts, _line(f"{counted(omitted, 'message')} left out here.")] if omitted else parts


def _other(message: Message) -> _Shown:
    if message.role == "assistant":
        return _answer(message, _MAX_CHARS_OF_OTHERS)
    text = without_middle(message.content, _MAX_CHARS_OF_OTHERS)
    return _Shown(f"> {quiet(message.role)}\n>\n{_quote(text)}", f"{message.role}: {plain_text(text)}".strip("\n"))


def _line(text: str) -> _Shown:
    return _Shown(quiet(text), text)


def _names(names: Sequence[str]) -> str:
    listed = [brief(_one_line(name), 200) for name in names[:_MAX_NAMED]]
    return ", ".join([*listed, "…"] if len(names) > _MAX_NAMED else listed)


def _one_line(text: str) -> str:
    return " ".join(shown(text).split())
