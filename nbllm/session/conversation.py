"""A conversation: messages that grow by a turn at a time, kept as JSON lines of OpenAI's messages.

{"role": "system", "content": "..."}
{"role": "user", "content": "..."}
{"role": "assistant", "content": "...", "reasoning_content": "..."}
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from nbllm.core import Chunk, Message
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.session.requests import Prompt
from nbllm.session.requests import message as as_message
from nbllm.session.requests import messages as as_messages
from nbllm.session.response import Collector, Response


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
            if isinstance(partial, Response) and partial.text:
                self._turns += [question, partial.message]
            raise
        self._turns += [question, response.message]
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
            if response.text:
                self._turns += [question, response.message]

    def fork(self, name: str | None = None) -> Conversation:
        """A copy that goes its own way from here; the shared beginning is evaluated once."""
        return Conversation(self.model, name=name, history=self._turns)

    def undo(self) -> None:
        """Forget the last question and its answer."""
        while self._turns and self._turns[-1].role != "user":
            if self._turns[-1].role in ("system", "developer"):
                return
            self._turns.pop()
        if self._turns:
            self._turns.pop()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the messages as JSON lines; the file is replaced only when all is written."""
        target = Path(path)
        lines = [json.dumps(_as_dict(turn), ensure_ascii=False) for turn in self._turns]
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass") as file:
                file.write("".join(line + "\n" for line in lines))
            Path(temporary).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Speaker, *, name: str | None = None) -> Conversation:
        """Read what `save` wrote.

        Raises:
            InvalidRequestError: a line is not a message; it is named, and nothing is changed.
        """
        turns: list[Message] = []
        for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="surrogatepass").split("\n"), 1):
            if not line.strip():
                continue
            try:
                turns.append(as_message(json.loads(line)))
            except ValueError as error:
                raise InvalidRequestError(f"{path}, line {number}: not a message ({error})") from error
        return cls(model, name=name, history=turns)

    def _question(self, prompt: str) -> Message:
        if not isinstance(prompt, str):
            raise ParameterError("prompt", f"must be a string, not {type(prompt).__name__}")
        return as_messages(prompt)[0]


def _as_dict(turn: Message) -> dict[str, str]:
    line = {"role": turn.role, "content": turn.content}
    if turn.reasoning:
        line["reasoning_content"] = turn.reasoning
    if turn.name:
        line["name"] = turn.name
    return line
