"""Lets the user's other programs use the models of this process: the notebook server's `/v1`, and other kernels.

Each shared model listens at a socket, and a record (nbllm.runner.records) says where. It takes both back when it is
closed, when sharing is turned off, and at the end of the process; a forked child shares nothing.
"""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.config import Config, load_config
from nbllm.core.flag import Flag
from nbllm.errors import NbllmError

if TYPE_CHECKING:
    from nbllm.engine.interface import Engine
    from nbllm.runner.host import EngineHost
    from nbllm.runner.records import Record
    from nbllm.session.model import Model

_HEAD_START_S = 0.2
"""What was loaded is about to be asked something, and that answer must not wait for imports."""
_KERNEL = "ipykernel.kernelapp"
_logger = logging.getLogger("nbllm.sharing")


class Shared:
    """A model that others may use, or will in a moment. Get one from `share`.

    Attributes:
        name: of the model.
        problem: why nobody can use it, "" when all is well.
    """

    def __init__(self, engine: Engine, config: Config) -> None:
        self.name = engine.info.model.name
        self.problem = ""
        self._engine, self._folder = engine, config.runtime_dir
        self._lock = threading.Lock()
        self._is_settled, self._is_withdrawn = Flag(), Flag()
        self._record: Record | None = None
        self._path: Path | None = None
        self._host: EngineHost | None = None
        _thread.start_new_thread(self._run, ())  # a Thread's start would wait until it runs, behind what holds the GIL

    @property
    def record(self) -> Record | None:
        """What others find; None before there is a record."""
        return self._record

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until others can find it, or it is known that they cannot; False when that takes too long."""
        return self._is_settled.wait(timeout_s)

    def close(self) -> None:
        """Take the record and the socket back, and cancel what others have asked. Twice is harmless."""
        self._is_withdrawn.set()
        with self._lock:
            path, self._path = self._path, None
            host, self._host = self._host, None
            self._record = None
        if path is not None:
            path.unlink(missing_ok=True)
        if host is not None:
            host.close()

    def _run(self) -> None:
        """All that takes time: imports, and the hash of a file that was never hashed before."""
        try:
            if not self._is_withdrawn.wait(_HEAD_START_S):
                self._open()
        except (NbllmError, OSError) as exc:
            self.problem = str(exc)
            _logger.info("%s is not shared: %s", self.name, exc)
        finally:
            self._is_settled.set()

    def _open(self) -> None:
        import secrets

        from nbllm.runner import records
        from nbllm.runner.host import EngineHost
        from nbllm.runner.listener import listen
        from nbllm.store.hashes import model_hash

        folder, token = records.prepare(self._folder), secrets.token_hex(32)
        info = self._engine.info
        file_hash = model_hash(info.model.path)
        with self._lock:
            if self._is_withdrawn.is_set():
                return
            self._host = EngineHost(self._engine, listen(folder), token)
            self._host.start()
            self._record = records.new_record(
                "kernel", info, address=self._host.address, token=token, file_hash=file_hash
            )
            self._path = records.write(folder, self._record)


class _State:
    """What this process shares: engines, by their identity, for several models may have one.

    Attributes:
        wish: what `set_on` was told, None while nobody has.
    """

    def __init__(self, wish: bool | None = None) -> None:
        self.lock = threading.Lock()
        self.wish = wish
        self.offered: list[Engine] = []
        self.shared: dict[int, Shared] = {}


_state = _State()


def is_on(config: Config | None = None) -> bool:
    """Whether models are shared once they are loaded: in a Jupyter kernel, unless the settings or `set_on` say no."""
    if _state.wish is not None:
        return _state.wish
    return _KERNEL in sys.modules and (config or load_config()).share_kernels


def set_on(is_on: bool) -> None:
    """Share every model of this process from now on, or none; turning it off cancels what others have asked."""
    with _state.lock:
        _state.wish = is_on
        engines = list(_state.offered)
    for engine in engines if is_on else ():
        _share(engine, load_config())
    if not is_on:
        _withdraw_all()


def offer(model: Model, config: Config) -> None:
    """Share a model of this process as long as sharing is on. Costs its caller nothing but the start of a thread."""
    with _state.lock:
        if all(engine is not model.base_engine for engine in _state.offered):
            _state.offered.append(model.base_engine)
    if is_on(config):
        share(model, config)


def share(model: Model, config: Config | None = None) -> Shared:
    """Let others use a model of this process; one that is shared already stays as it is.

    Of a preset it is the base that is shared: who asks it has presets of their own.
    """
    return _share(model.base_engine, config or load_config())


def unshare(model: Model) -> None:
    """Withdraw a model for good, as closing it does. One that is not shared is no error."""
    with _state.lock:
        _state.offered = [other for other in _state.offered if other is not model.base_engine]
        shared = _state.shared.pop(id(model.base_engine), None)
    if shared is not None:
        shared.close()


def shared_models() -> list[Shared]:
    """What is shared now, in the order it was."""
    with _state.lock:
        return list(_state.shared.values())


def _share(engine: Engine, config: Config) -> Shared:
    with _state.lock:
        known = _state.shared.get(id(engine))
        if known is None:
            known = _state.shared[id(engine)] = Shared(engine, config)
        return known


def _withdraw_all() -> None:
    with _state.lock:
        shared = list(_state.shared.values())
        _state.shared.clear()
    for one in shared:
        one.close()


def _start_anew() -> None:
    """In a forked child: the records and sockets are its parent's, and so are the locks that a thread may hold."""
    global _state
    _state = _State(wish=False)


atexit.register(_withdraw_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
