"""A conversation: messages that grow by a turn at a time, kept as JSON lines of OpenAI's messages.

{"role": "system", "content": "..."}
{"role": "user", "content": "..."}
{"role": "assistant", "content": "...", "reasoning_content": "..."}
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from nbllm.core import Chunk, Message
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.session.requests import Prompt
from nbllm.session.requests import message as as_message
from nbllm.session.requests import messages as as_messages
from nbllm.session.response import Collector, Response
from nbllm.session.watchers import Watchers
from nbllm.store.files import replace_file
from nbllm.store.header import shown

MAX_BYTES = 64 << 20
"""Of a saved conversation; a larger file is something else, and would fill the memory."""


class Speaker(Protocol):
    """What a conversation needs of a model."""

    last: Any

    @property
    def name(self) -> str: ...
    def chat(self, prompt: Prompt, **options: Any) -> Response: ...
    def stream(self, prompt: Prompt, **options: Any) -> Iterator[Chunk]: ...


class Conversation:
    """Turns of one chat with one model. Nothing is ever dropped from it; an answer that does not fit is an error.

    Args:
        system: the system message that starts it.
        history: turns to start from.
    """

    def __init__(
        self, model: Speaker, *, system: str | None = None, name: str | None = None, history: Sequence[Message] = ()
    ) -> None:
        self.model = model
        self.name = name
        self._turns = [*([Message("system", system)] if system is not None else []), *history]
        self._lock = threading.Lock()
        self._watchers = Watchers()

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"<nbllm.Conversation{label} of {len(self._turns)} messages with {self.model.name}>"

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def history(self) -> tuple[Message, ...]:
        return tuple(self._turns)

    def send(self, prompt: str, **options: Any) -> Response:
        """Say something and return the answer; both become part of the history.

        An interrupted answer is kept as far as it came. When nothing was answered the history stays as it was.
        """
        question = self._question(prompt)
        self.model.last = None
        try:
            response = self.model.chat([*self._turns, question], **options)
        except BaseException:
            partial = self.model.last
            if isinstance(partial, Response) and (partial.text or partial.tool_calls):
                self._add(question, partial.message)
            raise
        self._add(question, response.message)
        return response

    def stream(self, prompt: str, **options: Any) -> Iterator[Chunk]:
        """`send` piece by piece. What came before the loop was left is kept."""
        question = self._question(prompt)
        collector = Collector(self.model.name)
        try:
            for chunk in self.model.stream([*self._turns, question], **options):
                collector.add(chunk)
                yield chunk
        finally:
            response = collector.response()
            if response.text or response.tool_calls:
                self._add(question, response.message)

    def fork(self, name: str | None = None) -> Conversation:
        """A copy that goes its own way from here; the shared beginning is evaluated once."""
        return Conversation(self.model, name=name, history=self._turns)

    def undo(self) -> None:
        """Forget the last question and its answer."""
        with self._lock:
            self._turns = _without_last(self._turns)
        self._tell()

    def swap(self, before: Sequence[Message], after: Sequence[Message]) -> bool:
        """Go on from other turns, if the history is still `before`; say whether it was.

        For a surface that keeps branches, as the chat widget does: `send` only ever appends, so that neither an answer
        given again nor the branch that a person goes back to could get in here. The comparison keeps what another
        thread said in the meantime.
        """
        with self._lock:
            if self._turns != [*before]:
                return False
            self._turns = [*after]
        self._tell()
        return True

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after every change of the history, on the thread that made it.

        Returns:
            what ends that; calling it twice is harmless.
        """
        return self._watchers.add(callback)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the messages as JSON lines; the file is replaced only when all is written."""
        return write_messages(path, self._turns)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Speaker, *, name: str | None = None) -> Conversation:
        """Read what `save` wrote.

        Raises:
            InvalidRequestError: it is no such file; a line that is not a message is named, and nothing is changed.
        """
        return cls(model, name=name, history=read_messages(path))

    def _add(self, *turns: Message) -> None:
        with self._lock:
            self._turns = [*self._turns, *turns]
        self._tell()

    def _tell(self) -> None:
        self._watchers.tell("a conversation")

    def _question(self, prompt: str) -> Message:
        if not isinstance(prompt, str):
            raise ParameterError("prompt", f"must be a string, not {type(prompt).__name__}")
        return as_messages(prompt)[0]


def _without_last(turns: list[Message]) -> list[Message]:
    """The turns before the last question, or before what follows the last system message if that comes later."""
    end = len(turns)
    while end and turns[end - 1].role != "user":
        if turns[end - 1].role in ("system", "developer"):
            return turns[:end]
        end -= 1
    return turns[: max(0, end - 1)]


def write_messages(path: str | os.PathLike[str], messages: Iterable[Message]) -> Path:
    """Write messages as JSON lines; the file is replaced only when all is written."""
    target = Path(os.path.realpath(path))  # a link stays one
    replace_file(target, as_lines(messages), prefix=f".{target.name}.")
    return Path(path)


def as_lines(messages: Iterable[Message]) -> bytes:
    """What `write_messages` writes."""
    lines = [json.dumps(as_dict(turn), ensure_ascii=False) + "\n" for turn in messages]
    return "".join(lines).encode("utf-8", errors="surrogatepass")


def read_messages(path: str | os.PathLike[str]) -> tuple[Message, ...]:
    """Read what `write_messages` wrote.

    Raises:
        InvalidRequestError: it is no file, too large, not UTF-8, or a line of it is not a message.
        OSError: it cannot be read.
    """
    try:
        text = _content(Path(path)).decode("utf-8", errors="surrogatepass")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{shown(path)} is not UTF-8 (byte {error.start:,}), so no conversation") from error
    messages = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            messages.append(as_message(json.loads(line)))
        except (ValueError, RecursionError) as error:
            problem = f"{shown(path)}, line {number:,}: not a message ({_problem(error)})"
            raise InvalidRequestError(f"{problem}; correct the line, or take it out") from error
    return tuple(messages)


def _content(path: Path) -> bytes:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):  # to open a pipe would wait for its writer
        raise InvalidRequestError(f"{shown(path)} is {'a folder' if stat.S_ISDIR(mode) else 'no file'}")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1) if path.stat().st_size <= MAX_BYTES else None
    if content is None or len(content) > MAX_BYTES:
        raise InvalidRequestError(f"{shown(path)} is larger than {MAX_BYTES >> 20} MB, so no conversation")
    return content


def _problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno:,}"
    return "nested too deeply" if isinstance(error, RecursionError) else shown(error)


def as_dict(turn: Message) -> dict[str, Any]:
    """A message in OpenAI's form."""
    line: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.reasoning:
        line["reasoning_content"] = turn.reasoning
    if turn.name:
        line["name"] = turn.name
    if turn.tool_call_id:
        line["tool_call_id"] = turn.tool_call_id
    if turn.tool_calls:
        line["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    return line
