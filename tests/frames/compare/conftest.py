from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.session.cache import AnswerCache
from tests.frames.compare.talking import Garage
from tests.loaded import smollm2

__all__ = ["smollm2"]


@pytest.fixture
def garage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Garage:
    return Garage(tmp_path, monkeypatch)


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "cache")
