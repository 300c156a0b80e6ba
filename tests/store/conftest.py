from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nbllm.config import Config
from nbllm.store import bundled

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths mean a folder of the test's own."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("NBLLM_MODELS_DIR", str(folder))
    return folder


@pytest.fixture
def config(models_dir: Path) -> Config:
    return Config(models_dir=models_dir)


@pytest.fixture
def no_bundled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "BUNDLED", {"smollm2": "nbllm_package_that_is_nowhere"})
