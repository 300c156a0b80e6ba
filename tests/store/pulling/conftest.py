from __future__ import annotations

from collections.abc import Iterator

import pytest

from nbllm.store.pulling import lock
from tests.store.hub import Hub, serving, use


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        use(hub, monkeypatch)
        monkeypatch.setattr(lock, "_POLL_S", 0.01)
        yield hub
