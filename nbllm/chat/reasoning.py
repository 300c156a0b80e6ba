"""Splits what a model thinks before it answers from the answer, as the text arrives."""

from __future__ import annotations

from typing import NamedTuple


class Tags(NamedTuple):
    """The texts around a model's reasoning."""

    open: str
    close: str


class Split(NamedTuple):
    """New text of the reasoning and new text of the answer."""

    reasoning: str
    content: str


# The texts that models use, by how often; the first is taken where a template does not tell.
THINK_TAGS = (
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<thinking>", "</thinking>"),
)


class ReasoningSplitter:
    """Takes an answer in pieces and gives them back as reasoning and content. One answer, then `finish`.

    Only a think block at the very start counts, white space before it aside: a tag further on belongs to the answer.
    White space right after either tag is dropped, and so is that before the closing one. The result does not depend
    on how the text is cut into pieces.

    Args:
        open_at_start: the prompt already holds the opening tag. If the model writes it again, it is dropped.
    """

    def __init__(self, open_at_start: bool = False, tags: tuple[str, str] = THINK_TAGS[0]) -> None:
        self._open, self._close = tags
        self._without_tag = "reasoning" if open_at_start else "content"
        self._state = "start"
        self._held = ""
        self._at_edge = True  # white space that comes next is dropped

    @property
    def in_reasoning(self) -> bool:
        return self._state == "reasoning" or (self._state == "start" and self._without_tag == "reasoning")

    def push(self, text: str) -> Split:
        """Take the next piece; what could still turn out to be a tag is held back."""
        self._held += text
        reasoning = content = ""
        if self._state == "start":
            self._look_for_open()
        if self._state == "reasoning":
            reasoning += self._take_reasoning()
        if self._state == "content":
            content += self._take_content()
        return Split(reasoning, content)

    def finish(self) -> Split:
        """Give back what was held; nothing more can follow."""
        held, self._held = self._held, ""
        if self.in_reasoning:
            return Split(self._trimmed(held).rstrip(), "")
        return Split("", held if self._state == "start" else self._trimmed(held))

    def _look_for_open(self) -> None:
        body = self._held.lstrip()
        if body.startswith(self._open):
            self._held = body[len(self._open) :]
            self._state = "reasoning"
        elif not self._open.startswith(body):
            self._state = self._without_tag
            self._at_edge = self._state == "reasoning"

    def _take_reasoning(self) -> str:
        found = self._held.find(self._close)
        if found >= 0:
            taken = self._trimmed(self._held[:found]).rstrip()
            self._held = self._held[found + len(self._close) :]
            self._state, self._at_edge = "content", True
            return taken
        safe = len(self._held) - _overlap(self._held, self._close)
        safe = len(self._held[:safe].rstrip())  # it may stand before the closing tag
        taken, self._held = self._trimmed(self._held[:safe]), self._held[safe:]
        return taken

    def _take_content(self) -> str:
        taken, self._held = self._trimmed(self._held), ""
        return taken

    def _trimmed(self, text: str) -> str:
        if self._at_edge:
            text = text.lstrip()
            self._at_edge = not text
        return text


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0
