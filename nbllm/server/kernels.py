"""The engines that kernels share with this server: found by their records, reached over their sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from nbllm.errors import EngineError
from nbllm.runner import records
from nbllm.runner.client import RemoteEngine
from nbllm.runner.records import Record

SIGN_WITHIN_S = 2.0
"""A kernel that has not acknowledged a request by then sits in code that holds the GIL."""
_PASSED_OVER_S = 10.0
_FRESH_S = 0.25

_logger = logging.getLogger("nbllm.server")


class KernelEngines:
    """Keeps one connection to each kernel's engine that was asked for. To be used from the event loop only.

    Args:
        folder: where the records are.
        on_use: told the pid of a kernel that a request goes to.
        clock: seconds, monotonic.
    """

    def __init__(
        self, folder: Path, *, on_use: Callable[[int], None] = lambda pid: None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._folder, self._on_use, self._clock = folder, on_use, clock
        self._engines: dict[str, RemoteEngine] = {}
        self._passed_over: dict[str, float] = {}
        self._records: list[Record] = []
        self._read_at = float("-inf")

    async def records(self) -> list[Record]:
        """Of the live kernels, the newest first."""
        if self._clock() - self._read_at > _FRESH_S:
            self._records = await asyncio.to_thread(records.find, self._folder, kinds=("kernel",))
            self._read_at = self._clock()
            self._drop_all_but({record.token for record in self._records})
        return self._records

    async def with_model(self, file_hash: str, context_length: int | None) -> list[RemoteEngine]:
        """The engines that hold this very file with at least this context, those that froze lately left out."""
        found = []
        for record in await self.records():
            if not records.matches(record, file_hash=file_hash, context_length=context_length):
                continue
            engine = await self._connected(record)
            if engine is not None:
                found.append(engine)
        return found

    def used(self, engine: RemoteEngine) -> None:
        """Say that a request goes there, so that its kernel is not taken for idle."""
        for record in self._records:
            if self._engines.get(record.token) is engine:
                self._on_use(record.pid)

    def pass_over(self, engine: RemoteEngine) -> None:
        """Leave an engine that gave no sign alone for a while."""
        for token, known in self._engines.items():
            if known is engine:
                self._passed_over[token] = self._clock() + _PASSED_OVER_S

    def close(self) -> None:
        self._drop_all_but(set())

    async def _connected(self, record: Record) -> RemoteEngine | None:
        if self._passed_over.get(record.token, 0.0) > self._clock():
            return None
        engine = self._engines.get(record.token)
        if engine is not None and engine.is_alive:
            return engine
        try:
            async with asyncio.timeout(SIGN_WITHIN_S):
                engine = await asyncio.to_thread(
                    RemoteEngine, record.address, token=record.token, answer_timeout_s=SIGN_WITHIN_S
                )
        except (EngineError, TimeoutError) as error:
            _logger.warning("the model in kernel process %d cannot be reached: %s", record.pid, error or "no answer")
            self._passed_over[record.token] = self._clock() + _PASSED_OVER_S
            return None
        self._engines[record.token] = engine
        return engine

    def _drop_all_but(self, tokens: set[str]) -> None:
        for token in self._engines.keys() - tokens:
            self._engines.pop(token).close()
        self._passed_over = {token: until for token, until in self._passed_over.items() if token in tokens}
