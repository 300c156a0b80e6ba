"""An interrupt while C works frees what C made."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from nbllm.llama.owned import owned


@pytest.fixture
def alarm() -> Iterator[None]:
    """Rings in the main thread while it is in C."""

    def ring(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_what_is_made_is_returned() -> None:
    freed: list[Any] = []
    assert owned(max, freed.append, 3, 5) == 5
    assert freed == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that signal here")
def test_what_is_made_when_an_alarm_rings_is_freed(alarm: None) -> None:
    freed: list[Any] = []
    with pytest.raises(TimeoutError):
        owned(ctypes.CDLL(None).usleep, freed.append, 500_000)
    assert freed == [-1], "what usleep returns when a signal ends it"
