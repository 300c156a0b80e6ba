"""The bundled model, loaded once for all tests that need a real one. A conftest imports the fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.session.loading import load
from nbllm.session.model import Model

CONTEXT = 1024


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Iterator[Model]:
    """`nbllm.load` gives the same object to every package's fixture."""
    model = load("smollm2", context_length=CONTEXT, max_sequences=4, kv_tokens=4096)
    yield model
    model.close()
