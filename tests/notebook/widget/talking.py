"""What tests of a chat have in the places of its models and its page."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from nbllm.core import Request
from nbllm.core.presets import Preset
from nbllm.engine.interface import Engine, OnChunk
from nbllm.errors import ModelNotFoundError
from nbllm.notebook.widget.events import Ended, Event, Phase
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from nbllm.testing.script import ScriptedTicket


class AskedEngine(ScriptedEngine):
    """Says when it was asked: the thread of a chat does that in its own time."""

    def __init__(self) -> None:
        super().__init__()
        self.was_asked = threading.Event()

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        ticket = super().submit(request, on_chunk)
        self.was_asked.set()
        return ticket


class Rack:
    """The models of a process: `toy`, which is the default, and `other`. Each has to be loaded at first.

    Attributes:
        engines: those that were loaded, the last one last.
        on_load: called before a model is there; it may wait, or raise.
    """

    def __init__(self, make: Callable[[], Engine] = ScriptedEngine) -> None:
        self.engines: list[Any] = []
        self.on_load: Callable[[], None] = lambda: None
        self._make = make
        self._models: dict[str, Model] = {}

    def loaded(self, name: str | None) -> Model | None:
        self.path(name)
        return self._models.get(name or "toy")

    def load(self, name: str | None, **options: Any) -> Model:
        self.path(name)
        self.on_load()
        engine, key = self._make(), name or "toy"
        self.engines.append(engine)
        self._models[key] = Model(engine, on_close=lambda: self._forget(key))
        return self._models[key]

    def all_loaded(self) -> list[Model]:
        return list(self._models.values())

    def _forget(self, key: str) -> None:
        self._models.pop(key, None)

    def path(self, name: str | None) -> str:
        if name not in (None, "toy", "other"):
            raise ModelNotFoundError(f"no model {name!r}; the closest names: toy")
        return f"/models/{name or 'toy'}.gguf"

    def preset(self, name: str | None) -> Preset | None:
        return None

    def default(self) -> str:
        return "toy"


class Page:
    """Keeps the events, and lets a test wait for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._came:
            self.events.append(event)
            self._came.notify_all()

    def until(self, kind: type[Event]) -> None:
        """Wait for the next event of this kind, which may be here already."""
        with self._came:
            assert self._came.wait_for(lambda: any(isinstance(event, kind) for event in self.events), 20)

    @property
    def ended(self) -> Ended:
        """The last end of an answer."""
        return [event for event in self.events if isinstance(event, Ended)][-1]

    @property
    def phases(self) -> list[str]:
        return [event.phase for event in self.events if isinstance(event, Phase)]

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]
