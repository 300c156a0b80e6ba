"""An engine that is loaded when it is first asked something: a run whose answers are all cached loads nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from nbllm.core import EngineInfo, GenerateRequest, ModelInfo, RenderedPrompt, Request, SamplingParams
from nbllm.engine.interface import Engine, EngineStats, OnChunk, Ticket
from nbllm.errors import ModelLoadError, NbllmError
from nbllm.session.model import Model

_SEQUENCES = 8
"""What most engines will have; whoever looks before it is loaded only wants to keep it busy."""


class LateEngine:
    """Implements `engine.interface.Engine` for a model that may have to be loaded; of a preset for its base.

    Args:
        model: what its file says.
        open_model: loads it.

    Attributes:
        load_s: that loading took; None while it is not loaded.
    """

    def __init__(self, model: ModelInfo, open_model: Callable[[], Model]) -> None:
        self._described, self._open_model = _described(model), open_model
        self._lock = threading.Lock()
        self._model: Model | None = None
        self._failure: NbllmError | None = None
        self.load_s: float | None = None

    @property
    def info(self) -> EngineInfo:
        return self._described if self._model is None else self._model.base_engine.info

    def submit(self, request: Request, on_chunk: OnChunk) -> Ticket:
        return self._engine().submit(request, on_chunk)

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        return self._engine().tokenize(text, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._engine().detokenize(tokens)

    def render(self, request: GenerateRequest) -> RenderedPrompt:
        return self._engine().render(request)

    def stats(self) -> EngineStats:
        return EngineStats() if self._model is None else self._model.stats

    def close(self) -> None:
        """Free what was loaded. Once more it would be loaded anew."""
        with self._lock:
            model, self._model = self._model, None
        if model is not None:
            model.close()

    def _engine(self) -> Engine:
        """Raises what loading raised, each time: it is tried once."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._model is None:
                started = time.perf_counter()
                try:
                    self._model = self._open_model()
                except NbllmError as error:
                    self._failure = error
                    raise
                except OSError as error:
                    self._failure = ModelLoadError(f"{self.info.model.name}: {error}")
                    raise self._failure from error
                self.load_s = time.perf_counter() - started
            return self._model.base_engine


def _described(model: ModelInfo) -> EngineInfo:
    return EngineInfo(
        model=replace(model, loaded=False),
        context_length=0,
        max_sequences=_SEQUENCES,
        kv_tokens=0,
        kv_type="",
        gpu_layers=0,
        defaults=SamplingParams(),
        summary=f"{model.name} (loaded when it is needed)",
    )
