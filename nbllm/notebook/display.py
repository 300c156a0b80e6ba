"""An answer while it arrives: one output that is updated, or lines that are printed where none can be."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from nbllm.markup.characters import plain_text
from nbllm.markup.reasoning import folded
from nbllm.markup.stream import SafeStream
from nbllm.notebook.footer import quiet, usage_line

if TYPE_CHECKING:
    from nbllm.core import Chunk
    from nbllm.session.response import Response

MIN_INTERVAL_S = 0.05
"""Between two updates: more of them cost the front end time and show a reader nothing."""

Publish = Callable[..., None]


class AnswerView(Protocol):
    """Where one cell's answer appears."""

    def status(self, text: str) -> None:
        """Say what is going on before the answer starts."""

    def note(self, text: str) -> None:
        """Say something that stays under the answer."""

    def add(self, chunk: Chunk) -> None: ...
    def finish(self, response: Response, metadata: dict[str, Any]) -> None: ...


def answer_view(shell: Any) -> AnswerView:
    """The view that fits the shell: plain IPython prints every update again, so there the text itself is printed."""
    from IPython.core.displaypub import DisplayPublisher

    if type(shell.display_pub) is DisplayPublisher:
        return PrintedAnswer()
    return LiveAnswer(shell.display_pub.publish)


class LiveAnswer:
    """One output under one display id, as Markdown made safe and as plain text."""

    def __init__(self, publish: Publish, clock: Callable[[], float] = time.monotonic) -> None:
        self._publish, self._clock = publish, clock
        self._display_id = uuid.uuid4().hex
        self._text, self._reasoning = SafeStream(), SafeStream()
        self._parts: list[str] = []
        self._notes: list[str] = []
        self._thinks = False
        self._is_published = False
        self._next_update = 0.0

    def status(self, text: str) -> None:
        self._show(quiet(text), plain_text(text), {})

    def note(self, text: str) -> None:
        self._notes.append(text)
        self.status(text)

    def add(self, chunk: Chunk) -> None:
        if not (chunk.text or chunk.reasoning):
            return
        self._thinks = self._thinks or bool(chunk.reasoning.strip())
        self._reasoning.push(chunk.reasoning)
        self._text.push(chunk.text)
        self._parts.append(chunk.text)
        if self._clock() >= self._next_update:
            is_answering = any(self._parts)
            plain = plain_text("".join(self._parts)) if is_answering else "Thinking…"
            self._show(self._markdown(done=is_answering), plain, {})

    def finish(self, response: Response, metadata: dict[str, Any]) -> None:
        lines = [usage_line(response), *self._notes]
        footer = "<br>\n".join(quiet(line) for line in lines)
        answer = self._markdown(done=True).rstrip()
        # An empty line alone does not end a list: a paragraph must also start at the margin, as this one does.
        markdown = f"{answer}\n\n{footer}" if answer else footer
        plain = "\n\n".join(part for part in (plain_text(response.text).rstrip(), "\n".join(lines)) if part)
        self._show(markdown, plain, metadata)

    def _markdown(self, *, done: bool) -> str:
        thoughts = folded(self._reasoning.markdown(), done=done) if self._thinks else ""
        return thoughts + self._text.markdown()

    def _show(self, markdown: str, plain: str, metadata: dict[str, Any]) -> None:
        is_update, self._is_published = self._is_published, True
        self._publish(
            data={"text/plain": plain, "text/markdown": markdown},
            metadata=metadata,
            transient={"display_id": self._display_id},
            update=is_update,
        )
        self._next_update = self._clock() + MIN_INTERVAL_S


class PrintedAnswer:
    """The text as it comes, for a terminal: nothing in it can move the cursor or change a title."""

    def __init__(self) -> None:
        self._is_thinking = False
        self._notes: list[str] = []

    def status(self, text: str) -> None:
        self._write(f"{plain_text(text)}\n")

    def note(self, text: str) -> None:
        self._notes.append(text)

    def add(self, chunk: Chunk) -> None:
        if chunk.reasoning:
            self._write(("" if self._is_thinking else "[Thinking]\n") + plain_text(chunk.reasoning))
            self._is_thinking = True
        if chunk.text:
            self._write(("\n\n[Answer]\n" if self._is_thinking else "") + plain_text(chunk.text))
            self._is_thinking = False

    def finish(self, response: Response, metadata: dict[str, Any]) -> None:
        lines = "\n".join([usage_line(response), *map(plain_text, self._notes)])
        self._write(f"\n\n{lines}\n" if response.text or response.reasoning else f"{lines}\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
