"""In the kernel of test_attacks: chats in which whatever can have a text attacks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import nbllm
from nbllm.core import Chunk, GenerateRequest, Request
from nbllm.errors import ModelLoadError
from nbllm.session.model import Model
from nbllm.testing.vocabulary import TOY_MODEL
from tests.notebook import hostile

if TYPE_CHECKING:
    from nbllm.engine.interface import OnChunk
    from nbllm.notebook.widget.chat_widget import ChatWidget
    from nbllm.testing.script import ScriptedTicket

PARTS = 4
"""Each turn sends the conversation so far, so four short ones are faster than a long one."""
CONVERSATION = f"{hostile.IMG}`[y](javascript:alert(1))`"


class Echo(hostile.HostileEngine):
    """Thinks and says what it is told, in pieces."""

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        assert isinstance(request, GenerateRequest)
        text = (request.messages or ())[-1].content
        third = len(text) // 3
        parts = [text[:third], text[third : 2 * third], text[2 * third :]]
        said = [Chunk(reasoning=text), *(Chunk(text=part) for part in parts)]
        self.enqueue([*said, ModelLoadError(f"failed at {hostile.IMG}")] if text.startswith("fail") else said)
        return super(hostile.HostileEngine, self).submit(request, on_chunk)


def widget(shell: Any, part: int) -> ChatWidget:
    """Call it in a cell. The names of the model, of the conversation and of a file in the list of models attack."""
    if not part:
        hostile.begin(shell)
    model = Model(Echo(replace(TOY_MODEL, name=hostile.NAME)))
    return nbllm.ChatWidget(model, f"{part}{CONVERSATION}", system=hostile.IMG)


def texts(part: int) -> list[str]:
    """Half characters have a test of their own: no page can send them."""
    return [text.encode(errors="replace").decode() for text in list(hostile.CORPUS.values())[part::PARTS]]


def attack(chat: ChatWidget, part: int) -> None:
    """Each of the strings as a question, as an answer, and as what was thought before it."""
    for text in texts(part):
        chat.send(text)
