"""Engines whose answers are a function of the request, and a garage of model files that load into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.core import GenerateRequest, ModelInfo, Request
from nbllm.core.presets import Preset
from nbllm.engine.interface import OnChunk
from nbllm.errors import ModelLoadError
from nbllm.frames import using
from nbllm.frames.compare import contenders
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from nbllm.testing.script import ScriptedTicket
from nbllm.testing.vocabulary import TOY_MODEL
from tests.session.machine import Machine

if TYPE_CHECKING:
    import pytest

Reply = Callable[[GenerateRequest], str | BaseException]


class TalkingEngine(ScriptedEngine):
    """Says what `reply` makes of a request; an exception ends that answer."""

    def __init__(self, name: str, reply: Reply, path: str = "") -> None:
        super().__init__(replace(TOY_MODEL, name=name, path=path))
        self._reply = reply

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        if isinstance(request, GenerateRequest):
            said = self._reply(request)
            self.enqueue(said if isinstance(said, str) else ["", said])
        return super().submit(request, on_chunk)


def asked(request: GenerateRequest) -> str:
    """The text of its last message."""
    return (request.messages or ())[-1].content


def echo(request: GenerateRequest) -> str:
    return f"re: {asked(request)}"


def whole(request: GenerateRequest) -> str:
    """All that it was told."""
    return " / ".join(message.content for message in request.messages or ())


@contextmanager
def repeating_machine(monkeypatch: pytest.MonkeyPatch, *presets: Preset) -> Iterator[Machine]:
    """Has the model "toy", which answers with all that it was told, and these presets."""

    def make(info: ModelInfo) -> TalkingEngine:
        return TalkingEngine(info.name, whole, info.path)

    machine = Machine(monkeypatch, make)
    machine.add("toy")
    machine.save(*presets)
    yield machine
    machine.close()


def talking(name: str, reply: Reply = echo) -> Model:
    return Model(TalkingEngine(name, reply))


def requests_of(model: Model) -> list[GenerateRequest]:
    engine = model.engine
    assert isinstance(engine, TalkingEngine)
    return [request for request in engine.requests if isinstance(request, GenerateRequest)]


class Garage:
    """Model files in a folder. Stands in for the loading of models.

    Attributes:
        log: what was loaded and closed, in order.
        most: models that were in memory at the same time.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._replies = folder, dict[str, Reply]()
        self.log: list[str] = []
        self.in_memory: list[Model] = []
        self.most = 0
        monkeypatch.setattr(contenders, "load", self.load)
        for place in (contenders, using):
            monkeypatch.setattr(place, "loaded_models", lambda: list(self.in_memory))

    def add(self, name: str, reply: Reply | None = echo) -> str:
        """A file; None is one that cannot be loaded."""
        path = self._folder / f"{name}.gguf"
        path.write_bytes(f"the weights of {name}".encode())
        if reply is not None:
            self._replies[name] = reply
        return str(path)

    def load(self, spec: Any) -> Model:
        name = Path(spec).stem
        self.log.append(f"load {name}")
        if name not in self._replies:
            raise ModelLoadError(f"{name} is damaged")
        model = Model(TalkingEngine(name, self._replies[name], str(spec)), on_close=lambda: self._closed(name, model))
        self.in_memory.append(model)
        self.most = max(self.most, len(self.in_memory))
        return model

    def _closed(self, name: str, model: Model) -> None:
        if model in self.in_memory:
            self.in_memory.remove(model)
            self.log.append(f"close {name}")
