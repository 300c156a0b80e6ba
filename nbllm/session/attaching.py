"""Models in other processes: in one that holds the same file already, or in a runner of our own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from nbllm.config import Config
from nbllm.core import Chunk, EngineInfo, GenerateRequest, RenderedPrompt, Request
from nbllm.engine.interface import EngineStats, OnChunk, Ticket
from nbllm.errors import EngineClosedError, EngineDeadError, ModelError, NbllmError, ParameterError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from nbllm.runner.client import RemoteEngine
    from nbllm.runner.records import Record
    from nbllm.runner.spawn import RunningRunner
    from nbllm.runner.spec import LoadOptions

SIGN_WITHIN_S = 2.0
"""A process that has not acknowledged a request by then sits in code that lets nothing else run."""
_AT_LEAST = ("context_length", "max_sequences", "kv_tokens")
TOLD = {*_AT_LEAST, "kv_type"}
"""The options that a record tells of. An engine that was asked for with others has to be started with them."""
_KINDS = {"int": "must be a whole number", "bool": "must be True or False", "str": "must be a text"}
_T = TypeVar("_T")


class LostModelError(ModelError, EngineDeadError):
    """The process that an attached model lives in has ended, or does not answer: loading it again helps."""


class AttachedEngine:
    """Implements `engine.interface.Engine` with one of another process. Every method is safe on any thread.

    Args:
        remote: the connection, owned from here on.
        place: where it lives, for people.
        runner: the process, if it is ours to end.

    Attributes:
        is_lost: its end was told to somebody who asked it something.
    """

    def __init__(
        self, remote: RemoteEngine, place: str, *, name: str, path: str, runner: RunningRunner | None = None
    ) -> None:
        self._remote, self._place, self._runner = remote, place, runner
        self._pid = os.getpid()
        self.is_lost = False
        theirs = remote.info
        self.info: EngineInfo = replace(
            theirs,
            model=replace(theirs.model, name=name, path=path),
            summary=f"{theirs.summary}; lives in {place}",
        )

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked, as far as is known without asking."""
        return self._remote.is_alive and not self.is_lost

    def submit(self, request: Request, on_chunk: OnChunk) -> Ticket:
        """Send a request, and wait until it was taken in; see `Engine.submit`."""

        def relay(chunk: Chunk) -> None:
            if isinstance(chunk.error, EngineDeadError):
                chunk = replace(chunk, error=self._lost(chunk.error))
            on_chunk(chunk)

        return self._ask(lambda: self._remote.submit(request, relay))

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        return self._ask(lambda: self._remote.tokenize(text, parse_special=parse_special))

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._ask(lambda: self._remote.detokenize(tokens))

    def render(self, request: GenerateRequest) -> RenderedPrompt:
        return self._ask(lambda: self._remote.render(request))

    def stats(self) -> EngineStats:
        return self._ask(self._remote.stats)

    def close(self) -> None:
        """End a runner of our own; another process goes on without us. Twice is harmless."""
        if os.getpid() != self._pid:
            return
        if self._runner is not None:
            self._runner.stop()
        else:
            self._remote.close()

    def _ask(self, question: Callable[[], _T]) -> _T:
        if os.getpid() != self._pid:
            raise EngineClosedError(
                "this model belongs to the process that this one was forked from; attach to it here with "
                f"nbllm.load({self.info.model.name!r}, engine='server')"
            )
        try:
            return question()
        except EngineDeadError as error:
            raise self._lost(error) from error

    def _lost(self, error: EngineDeadError) -> LostModelError:
        self.is_lost = True
        name = self.info.model.name
        if self._remote.is_alive:
            reason = f"{name} in {self._place}: {error}"
        elif self._runner is not None and self._runner.returncode is not None:
            reason = self._runner.farewell()
        else:
            reason = f"{name} is gone: the connection to {self._place} ended"
        return LostModelError(f"{reason}; load it again: nbllm.load({name!r}, engine='server')")


def attach(
    path: str, name: str, options: Mapping[str, Any], config: Config, *, usual: Mapping[str, Any] = MappingProxyType({})
) -> AttachedEngine:
    """Connect to a live runner, else to a kernel, that holds this file and suits the options, else start a runner.

    A runner that is started here ends with this process, or when the engine is closed.

    Args:
        options: those of `nbllm.load` that were given.
        usual: others that a process is started with, though one without them would do.

    Raises:
        ParameterError: an option is of a wrong type or out of range.
        ModelError, EngineError: the runner could not load the model.
    """
    checked = _checked({**usual, **options})
    for record in _same_file(path, [record for record in _others(config) if _suits(record, options)]):
        remote = _reached(record)
        if remote is not None:
            return AttachedEngine(remote, f"{record.kind} process {record.pid}", name=name, path=path)
    return _started(path, name, checked, config)


def live_twin(path: str, options: Mapping[str, Any], config: Config) -> Record | None:
    """Another process's engine that would do, told by the file's path alone: nothing is hashed."""
    return next((twin for twin in _others(config) if _suits(twin, options) and _has_open(twin, path)), None)


# ---- records


def _others(config: Config) -> list[Record]:
    """The live engines of other processes, runners first: a kernel's user may want the cores for himself."""
    own = f"{os.getpid()}-"
    try:
        with os.scandir(config.runtime_dir) as entries:
            are_there = any(entry.name.endswith(".json") and not entry.name.startswith(own) for entry in entries)
    except OSError:
        return []
    if not are_there:  # and nothing needs to be imported
        return []
    from nbllm.runner import records

    found = [record for record in records.find(config.runtime_dir) if record.pid != os.getpid()]
    return sorted(found, key=lambda record: record.kind != "runner")


def _suits(record: Record, options: Mapping[str, Any]) -> bool:
    given = {name: value for name, value in options.items() if value is not None}
    if not given.keys() <= TOLD or given.get("kv_type", record.kv_type) != record.kv_type:
        return False
    sizes = {name: given[name] for name in _AT_LEAST if name in given}
    return all(isinstance(size, int) and getattr(record, name) >= size for name, size in sizes.items())


def _has_open(record: Record, path: str) -> bool:
    """Whether it was loaded from this file, which nobody has changed since."""
    try:
        ours, theirs = os.stat(path), os.stat(record.path)
    except OSError:
        return False
    return os.path.samestat(ours, theirs) and ours.st_mtime <= record.created


def _same_file(path: str, candidates: Sequence[Record]) -> list[Record]:
    """Those of the same content. A file is hashed only if another one of its size is loaded."""
    alike = [record for record in candidates if _size(record.path) == _size(path)]
    if not alike:
        return []
    from nbllm.runner import records
    from nbllm.store.hashes import model_hash

    file_hash = model_hash(path)
    return [record for record in alike if records.matches(record, file_hash=file_hash)]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


# ---- connections


def _reached(record: Record) -> RemoteEngine | None:
    """A connection to the engine; None when nobody answers in time."""
    from concurrent.futures import Future

    connecting: Future[RemoteEngine] = Future()
    threading.Thread(target=_connect, args=(record, connecting), name="nbllm-attach", daemon=True).start()
    try:
        return connecting.result(SIGN_WITHIN_S)
    except (NbllmError, TimeoutError):
        return None
    finally:
        if not connecting.done():
            connecting.add_done_callback(_close_late)


def _connect(record: Record, connecting: Future[RemoteEngine]) -> None:
    from nbllm.runner.client import RemoteEngine

    try:
        connecting.set_result(RemoteEngine(record.address, token=record.token, answer_timeout_s=SIGN_WITHIN_S))
    except NbllmError as error:
        connecting.set_exception(error)


def _close_late(connected: Future[RemoteEngine]) -> None:
    if connected.exception() is None:
        connected.result().close()


def _started(path: str, name: str, options: LoadOptions, config: Config) -> AttachedEngine:
    from nbllm.runner import spawn
    from nbllm.runner.spec import RunnerSpec

    spec = RunnerSpec(path=Path(path), name=name, folder=config.runtime_dir.absolute(), options=options)
    runner = spawn.start(spec, timeout_s=config.load_timeout)
    return AttachedEngine(runner.engine, f"runner process {runner.pid}", name=name, path=path, runner=runner)


def _checked(options: Mapping[str, Any]) -> LoadOptions:
    """The options in a form that can be sent. The runner checks their ranges."""
    import msgspec

    from nbllm.runner.spec import LoadOptions

    for name, value in options.items():
        try:
            msgspec.convert({name: value}, LoadOptions)
        except msgspec.ValidationError as error:
            expected = str(error).partition("got")[0]  # "Expected `int | null`, got `str` - at ..."
            kind = next(text for known, text in _KINDS.items() if known in expected)
            raise ParameterError(name, f"{kind}, not {value!r:.100}") from error
    return LoadOptions(**options)
