"""An engine whose answers are a function of the request, given one by one from another thread, in any order."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path

from nbllm.core import ChoiceRequest, Chunk, EmbedRequest, GenerateRequest, Request, Timings, TokenLogprob, Usage
from nbllm.engine.interface import OnChunk
from nbllm.errors import EngineError, InvalidRequestError
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from nbllm.testing.script import ScriptedTicket
from nbllm.testing.vocabulary import TOY_MODEL


class AnsweringEngine(ScriptedEngine):
    """Answers "<prompt>!", or fails where the prompt says so: "refuse" in `submit`, "break" in the answer.

    Args:
        path: of a file that stands for the model's.
        seed: for the order of the answers; None answers at once.
        most: after so many answers all others wait until they are cancelled.

    Attributes:
        most_at_once: requests that were there at the same time.
    """

    def __init__(self, path: Path, *, seed: int | None = None, most: int | None = None) -> None:
        super().__init__(replace(TOY_MODEL, path=str(path)))
        self.most_at_once = self.num_answered = 0
        self._random = None if seed is None else random.Random(seed)
        self._most = most
        self._lock = threading.RLock()
        self._open: list[tuple[ScriptedTicket, list[Chunk]]] = []
        self._timer: threading.Timer | None = None

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        self.requests.append(request)
        if "refuse" in prompt(request):
            raise InvalidRequestError(f"{prompt(request)} was refused")
        chunks = list(_answer(request))
        cancelled = [Chunk(index=chunk.index, finish_reason="interrupted") for chunk in chunks]
        ticket = ScriptedTicket(on_chunk, cancelled)
        with self._lock:
            self._open.append((ticket, chunks))
            waiting = [entry for entry in self._open if entry[0].pending]
            self.most_at_once = max(self.most_at_once, len(waiting))
        if self._random is None:
            self._give(ticket, chunks)
        elif self._timer is None or not self._timer.is_alive():
            self._timer = threading.Timer(0.0, self._give_all)
            self._timer.start()
        return ticket

    def _give_all(self) -> None:
        assert self._random is not None
        while True:
            with self._lock:
                waiting = [entry for entry in self._open if entry[0].pending]
                if not waiting or self._is_tired():
                    self._timer = None
                    return
                self._give(*self._random.choice(waiting))

    def _give(self, ticket: ScriptedTicket, chunks: list[Chunk]) -> None:
        with self._lock:
            if self._is_tired():
                return
            self.num_answered += 1
            self._open = [entry for entry in self._open if entry[0] is not ticket]
            ticket.pending = []
        for chunk in chunks:
            ticket.on_chunk(chunk)

    def _is_tired(self) -> bool:
        return self._most is not None and self.num_answered >= self._most


def answering(folder: Path, *, seed: int | None = None, most: int | None = None) -> tuple[Model, AnsweringEngine]:
    """A model, and the engine behind it. Those of one folder count as the same model."""
    path = folder / "answering.gguf"
    if not path.exists():
        path.write_bytes(b"not really")
    engine = AnsweringEngine(path, seed=seed, most=most)
    return Model(engine), engine


def prompt(request: Request) -> str:
    if isinstance(request, EmbedRequest):
        return request.texts[0]
    messages = request.messages
    assert messages
    return messages[-1].content


def _answer(request: Request) -> list[Chunk]:
    text = prompt(request)
    if "break" in text:
        return [Chunk(finish_reason="error", error=EngineError(f"{text} broke"))]
    timings = Timings(0.5, 0.25, 0.75, 0.125)
    if isinstance(request, GenerateRequest):
        cut = "long" in text
        usage = Usage(len(text), 3)
        ending = Chunk(finish_reason="length" if cut else "stop", usage=usage, timings=timings, seed=1)
        return [Chunk(text=text[:1], tokens=(1,)), Chunk(text=text[1:] + "!", tokens=(2, 3)), ending]
    if isinstance(request, EmbedRequest):
        import numpy as np

        vector = np.array([len(text), 1, 2], np.float32)
        return [Chunk(finish_reason="stop", embedding=vector, timings=timings)]
    assert isinstance(request, ChoiceRequest)
    return [
        Chunk(index=index, finish_reason="stop", token_logprobs=(_entry(-len(choice)), _entry(-0.5)), timings=timings)
        for index, choice in reversed(list(enumerate(request.choices)))
    ]


def _entry(logprob: float) -> TokenLogprob:
    return TokenLogprob(0, b"", logprob)
