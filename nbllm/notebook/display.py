"""An answer while it arrives: one output that is updated, or lines that are printed where none can be."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from nbllm.markup.characters import PlainStream, plain_text
from nbllm.markup.reasoning import folded
from nbllm.markup.stream import SafeStream
from nbllm.notebook.footer import quiet
from nbllm.notebook.formats import body

if TYPE_CHECKING:
    from nbllm.core import Chunk
    from nbllm.session.response import Response

MIN_INTERVAL_S = 0.05
"""Between two updates: more of them cost the front end time and show a reader nothing."""

_LENGTH_OF_TWICE = 8000
"""Characters with which the interval has doubled: every update sends and renders the whole answer again."""

Publish = Callable[..., None]


class AnswerView(Protocol):
    """Where one cell's answer appears."""

    def status(self, text: str) -> None:
        """Say what is going on before the answer starts."""

    def claim(self) -> None:
        """Take a place among the outputs now, for an answer that is still to come."""

    def add(self, chunk: Chunk) -> None: ...
    def finish(self, response: Response, footer: Sequence[str], metadata: dict[str, Any]) -> None:
        """Show the whole, with lines under it, and leave the metadata with the output."""


def answer_view(shell: Any, format_name: str = "markdown") -> AnswerView:
    """The view that fits the shell: plain IPython prints every update again, so there the text itself is printed."""
    return LiveAnswer(shell.display_pub.publish, format_name=format_name) if updates(shell) else PrintedAnswer()


def updates(shell: Any) -> bool:
    """Whether the shell's outputs can be updated."""
    from IPython.core.displaypub import DisplayPublisher

    return type(shell.display_pub) is not DisplayPublisher


class Output:
    """One output of the running cell, updated from its second showing on.

    Args:
        publish: as IPython's `DisplayPublisher.publish`.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish, self._display_id = publish, uuid.uuid4().hex
        self.is_shown = False

    def show(self, data: dict[str, str], metadata: dict[str, Any]) -> None:
        is_update, self.is_shown = self.is_shown, True
        self._publish(data=data, metadata=metadata, transient={"display_id": self._display_id}, update=is_update)


class LiveAnswer:
    """One output under one display id, as safe Markdown and as plain text.

    Args:
        publish: as IPython's `DisplayPublisher.publish`.
        format_name: one of `arguments.FORMATS`.
    """

    def __init__(
        self, publish: Publish, clock: Callable[[], float] = time.monotonic, format_name: str = "markdown"
    ) -> None:
        self._output, self._clock = Output(publish), clock
        self._body, self._reasoning = body(format_name), SafeStream()
        self._plain = PlainStream()
        self._thinks = self._is_answering = False
        self._next_update = 0.0

    def status(self, text: str) -> None:
        self._show({"text/plain": plain_text(text), "text/markdown": quiet(text)}, {})

    def claim(self) -> None:
        if not self._output.is_shown:
            self.status("…")
            self._next_update = 0.0

    def add(self, chunk: Chunk) -> None:
        if not (chunk.text or chunk.reasoning):
            return
        self._thinks = self._thinks or bool(chunk.reasoning.strip())
        self._reasoning.push(chunk.reasoning)
        self._body.push(chunk.text)
        self._plain.push(chunk.text)
        self._is_answering = self._is_answering or bool(chunk.text)
        if self._clock() >= self._next_update:
            plain = self._plain.text() if self._is_answering else "Thinking…"
            self._show(_both(plain, self._markdown(done=self._is_answering)), {})

    def finish(self, response: Response, footer: Sequence[str], metadata: dict[str, Any]) -> None:
        others = self._body.finished()
        plain = others.get("text/plain", plain_text(response.text).rstrip())
        plain = "\n\n".join(part for part in (plain, "\n".join(map(plain_text, footer))) if part)
        markdown = self._markdown(done=True)
        if markdown is not None:
            markdown = _with_footer(markdown.rstrip(), footer)
        if "text/html" in others:  # front ends show it instead of the Markdown
            others["text/html"] += "<br>".join(map(quiet, footer))
        self._show(others | _both(plain, markdown), metadata)

    def _markdown(self, *, done: bool) -> str | None:
        answer = self._body.markdown()
        if answer is None:
            return None
        return (folded(self._reasoning.markdown(), done=done) if self._thinks else "") + answer

    def _show(self, data: dict[str, str], metadata: dict[str, Any]) -> None:
        self._output.show(data, metadata)
        length = len(data["text/plain"])
        self._next_update = self._clock() + MIN_INTERVAL_S * (1 + length / _LENGTH_OF_TWICE)


def _both(plain: str, markdown: str | None) -> dict[str, str]:
    return {"text/plain": plain} | ({} if markdown is None else {"text/markdown": markdown})


def _with_footer(answer: str, footer: Sequence[str]) -> str:
    lines = "<br>\n".join(map(quiet, footer))
    # An empty line alone does not end a list: a paragraph must also start at the margin, as this one does.
    return f"{answer}\n\n{lines}" if answer and lines else answer or lines


class PrintedAnswer:
    """The text as it comes, for a terminal: nothing in it can move the cursor or change a title."""

    def __init__(self) -> None:
        self._is_thinking = False
        self._said: set[str] = set()

    def status(self, text: str) -> None:
        self._said.add(text)
        self._write(f"{plain_text(text)}\n")

    def claim(self) -> None:
        """A terminal has one place for everything."""

    def add(self, chunk: Chunk) -> None:
        if chunk.reasoning:
            self._write(("" if self._is_thinking else "[Thinking]\n") + plain_text(chunk.reasoning))
            self._is_thinking = True
        if chunk.text:
            self._write(("\n\n[Answer]\n" if self._is_thinking else "") + plain_text(chunk.text))
            self._is_thinking = False

    def finish(self, response: Response, footer: Sequence[str], metadata: dict[str, Any]) -> None:
        lines = "".join(f"{plain_text(line)}\n" for line in footer if line not in self._said)
        self._write(f"\n\n{lines}" if response.text or response.reasoning else lines)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
