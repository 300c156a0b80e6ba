from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.config import Config, stores


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Path, ...]]:
    """The folders of each store, which a test may change."""
    named: dict[str, tuple[Path, ...]] = {store: (tmp_path / "stores" / store,) for store in stores.FOREIGN_STORES}
    monkeypatch.setattr(stores, "store_folders", lambda store: named[store])
    return named


@pytest.fixture
def store(tmp_path: Path, folders: dict[str, tuple[Path, ...]]) -> Path:
    """What holds the folders of all stores, by their names."""
    return tmp_path / "stores"


@pytest.fixture
def config(models_dir: Path, no_bundled_model: None) -> Config:
    return Config(models_dir=models_dir)
