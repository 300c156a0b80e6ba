"""One request with an engine in another process, seen from the event loop."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from nbllm.core import GenerateRequest
from nbllm.errors import EngineDeadError
from nbllm.server import flight
from nbllm.server.flight import Flight, FrozenError

if TYPE_CHECKING:
    from collections.abc import Callable


class _Frozen:
    """An engine that gives no sign until it is found dead."""

    def __init__(self) -> None:
        self.has_request = asyncio.Event()
        self.die: Callable[[EngineDeadError], None]

    def begin(self, request: object, on_chunk: object, on_reply: Any, on_received: object) -> object:
        self.die = on_reply
        self.has_request.set()
        return SimpleNamespace(cancel=lambda: None)


@pytest.mark.parametrize("ended_by", ["no sign", "its client"])
async def test_an_end_that_nobody_waits_for_is_no_news(monkeypatch: pytest.MonkeyPatch, ended_by: str) -> None:
    monkeypatch.setattr(flight, "RemoteEngine", _Frozen)
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    engine: Any = _Frozen()
    beginning = asyncio.ensure_future(
        Flight.begin(engine, GenerateRequest(text="hi"), sign_within_s=0.01 if ended_by == "no sign" else 60)
    )
    await engine.has_request.wait()
    if ended_by == "its client":
        await asyncio.sleep(0)
        beginning.cancel()
    with pytest.raises(FrozenError if ended_by == "no sign" else asyncio.CancelledError):
        await beginning
    engine.die(EngineDeadError("the process that ran the model ended"))
    await asyncio.sleep(0.01)
    del beginning, engine
    gc.collect()
    assert told == []
