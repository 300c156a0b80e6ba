"""A machine whose models are scripts: files in the models folder, and presets of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.config import Config, load_config
from nbllm.core import ModelInfo
from nbllm.core.presets import Preset
from nbllm.session import loading, sharing
from nbllm.session.loading import loaded_models
from nbllm.store.presets import shelf
from nbllm.testing import ScriptedEngine

if TYPE_CHECKING:
    import pytest


class Machine:
    """Stands in for the loading of models into this process, of which `nbllm.load` keeps books as ever.

    Attributes:
        engines: those that were loaded, in order, and `options` with what.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, make: Callable[[ModelInfo], ScriptedEngine] = ScriptedEngine
    ) -> None:
        self.engines: list[Any] = []
        self.options: list[dict[str, Any]] = []
        self._make = make
        monkeypatch.setattr(loading, "_loaded", {})
        monkeypatch.setattr(loading, "load_engine", self.load)
        monkeypatch.setattr(sharing, "_state", sharing._State())
        monkeypatch.setattr(sharing, "_HEAD_START_S", 0.0)

    def load(self, info: ModelInfo, config: Config, **options: Any) -> ScriptedEngine:
        engine = self._make(info)
        self.engines.append(engine)
        self.options.append(options)
        return engine

    @staticmethod
    def add(name: str) -> Path:
        """A file in the models folder."""
        path = load_config().models_dir / f"{name}.gguf"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"the weights of {name}".encode())
        return path

    @staticmethod
    def save(*presets: Preset) -> None:
        for preset in presets:
            shelf.save(preset, load_config())

    @staticmethod
    def close() -> None:
        for model in loaded_models():
            model.close()
