from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.store.presets.files import FOLDER
from tests.store import gguf_writer as g

Put = Callable[[str, str | bytes], Path]


@pytest.fixture
def tiny(models_dir: Path, no_bundled_model: None) -> Path:
    """The file of the model `tiny`, which is the only one."""
    return g.write(models_dir / "tiny.gguf", g.tiny_model())


@pytest.fixture
def put(config: Config) -> Put:
    """Writes a file into the folder of the presets, as a person does."""

    def write(name: str, text: str | bytes) -> Path:
        path = config.models_dir / FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write
