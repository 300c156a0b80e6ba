"""A runner from the wish for it to its end, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from nbllm.core import EngineInfo
from nbllm.errors import NbllmError
from nbllm.runner import pool
from nbllm.runner.client import RemoteEngine
from nbllm.runner.spec import RunnerSpec

State = Literal["starting", "ready", "backing off", "stopping"]


class Runner(Protocol):
    """What a supervisor needs of a `spawn.RunningRunner`."""

    @property
    def engine(self) -> RemoteEngine: ...
    @property
    def pid(self) -> int: ...
    @property
    def is_alive(self) -> bool: ...
    def when_gone(self, callback: Callable[[], None]) -> None: ...
    def stop(self) -> None: ...


Starter = Callable[[RunnerSpec, threading.Event], Runner]
"""Loads, and blocks meanwhile; gives up when the event is set. `spawn.start` with its `timeout_s` given is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerState:
    """One line of the list of runners.

    Attributes:
        pid: 0 while there is no process.
        since: when this state began, by the supervisor's clock.
        expires_at: when it is unloaded unless somebody asks, or may be started again; None for not by itself.
        num_active: leases.
        info: of its engine; None while there is none.
        names: what it was asked for as, the first one first.
    """

    name: str
    path: Path
    state: State
    pid: int
    since: float
    expires_at: float | None
    num_active: int
    info: EngineInfo | None = None
    names: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class Entry:
    """A runner from the wish for it to its end. An `Occupant` of the pool.

    Attributes:
        has_place: counts as loaded: it was let in, and has not gone.
        work: what loads it, and later what stops it.
        cancelled: set to give up loading.
        names: what it was asked for as, in order; a dict for that.
    """

    spec: RunnerSpec
    state: State
    since: float
    keep_alive_s: float
    last_used: float
    num_active: int = 0
    num_waiting: int = 0
    has_place: bool = False
    runner: Runner | None = None
    error: NbllmError | None = None
    work: asyncio.Task[None] | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    names: dict[str, None] = field(default_factory=dict)

    @property
    def num_users(self) -> int:
        return self.num_active + self.num_waiting

    @property
    def num_guests(self) -> int:
        """Other processes, such as kernels, that are attached to the runner."""
        return self.runner.engine.num_others if self.runner is not None else 0


def described(entry: Entry) -> RunnerState:
    return RunnerState(
        name=entry.spec.name,
        path=entry.spec.path,
        state=entry.state,
        pid=entry.runner.pid if entry.runner is not None else 0,
        since=entry.since,
        expires_at=pool.expires_at(entry) if entry.state == "ready" else None,
        num_active=entry.num_active,
        info=entry.runner.engine.info if entry.runner is not None else None,
        names=tuple(entry.names),
    )


def backing_off(spec: RunnerSpec, backoff: pool.Backoff) -> RunnerState:
    return RunnerState(
        name=spec.name,
        path=spec.path,
        state="backing off",
        pid=0,
        since=backoff.since,
        expires_at=backoff.until,
        num_active=0,
    )
