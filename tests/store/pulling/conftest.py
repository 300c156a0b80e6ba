from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.store.pulling import download, lock
from tests.store.hub import Hub, serving, use
from tests.store.pulling.registry import Registry
from tests.store.pulling.registry import serving as serving_registry


@pytest.fixture
def config(models_dir: Path) -> Config:
    """Of a machine that asks no registry."""
    return Config(models_dir=models_dir, registry="none")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        use(hub, monkeypatch)
        monkeypatch.setattr(lock, "_POLL_S", 0.01)
        yield hub


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setattr(lock, "_POLL_S", 0.01)
    monkeypatch.setattr(download, "WAITS_S", (0.0, 0.0))
    with serving_registry() as registry:
        yield registry
