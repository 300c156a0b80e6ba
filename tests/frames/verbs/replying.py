"""An engine that answers by what it is asked, whatever the order."""

from __future__ import annotations

from collections.abc import Callable

from nbllm.core import ChoiceRequest, GenerateRequest, Request
from nbllm.engine.interface import OnChunk
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from nbllm.testing.script import Piece, ScriptedTicket

Reply = Callable[[str], Piece]


class ReplyingEngine(ScriptedEngine):
    """Says what `reply` makes of the last message."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        if isinstance(request, GenerateRequest | ChoiceRequest):
            self.enqueue(self._reply((request.messages or ())[-1].content))
        return super().submit(request, on_chunk)

    @property
    def prompts(self) -> list[str]:
        """The last messages of what was asked, sorted."""
        asked = [request for request in self.requests if isinstance(request, GenerateRequest | ChoiceRequest)]
        return sorted((request.messages or ())[-1].content for request in asked)


def replying(reply: Reply) -> tuple[Model, ReplyingEngine]:
    engine = ReplyingEngine(reply)
    return Model(engine), engine


def last_line(prompt: str) -> str:
    """The row's text, which every verb puts last."""
    return prompt.splitlines()[-1]
