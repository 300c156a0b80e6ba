"""The runner: loads one model, serves it at a socket, and goes when its parent does."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from nbllm.config import load_config
from nbllm.errors import NbllmError
from nbllm.runner import handshake, records
from nbllm.runner.host import EngineHost
from nbllm.runner.listener import listen
from nbllm.runner.process import no_core_file

if TYPE_CHECKING:
    from nbllm.core import EngineInfo
    from nbllm.engine.interface import Engine
    from nbllm.runner.spec import RunnerSpec

GRACE_S = 5.0
"""From the wish to go to the end, whatever llama.cpp does."""
_PARENT_CHECK_S = 1.0
_OOM_SCORE = "500"  # half the memory of the machine, in the kernel's reckoning
_logger = logging.getLogger(__name__)

Loader = Callable[["RunnerSpec"], "Engine"]


def main() -> NoReturn:
    """Do what one line on stdin says, until stdin ends or SIGTERM comes."""
    answers = _taken_stdout()
    _prepare_process()
    try:
        with open(0, "rb", buffering=0, closefd=False) as orders:  # unbuffered: what follows the line stays there
            order = handshake.decoded_order(orders.readline(handshake.MAX_LINE_BYTES))
    except NbllmError as exc:
        _say(answers, handshake.Failed.because(exc))
        _leave(2)
    runner = Runner(order, load_model)
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    threading.Thread(target=_watch_parent, args=(runner.stop,), name="nbllm-runner-parent", daemon=True).start()
    threading.Thread(target=runner.serve, args=(answers,), name="nbllm-runner-load", daemon=True).start()
    runner.wait()
    faulthandler.dump_traceback_later(GRACE_S, exit=True)  # from C: it needs no GIL
    runner.close()
    _leave(runner.exit_code)


def load_model(spec: RunnerSpec) -> Engine:
    """Load what is asked for into this process, as this machine is set up."""
    import msgspec

    from nbllm.engine.load import load_engine
    from nbllm.store.gguf import model_info

    return load_engine(model_info(spec.path, spec.name), load_config(), **msgspec.structs.asdict(spec.options))


class Runner:
    """One model from its order to its end. The main thread only waits, so that signals are heard while C code runs.

    Attributes:
        exit_code: 0 after a stop, 1 when the model could not be loaded.
    """

    def __init__(self, order: handshake.Order, load: Loader) -> None:
        self._order, self._load = order, load
        self._stops: queue.SimpleQueue[None] = queue.SimpleQueue()  # unlike an Event it takes a call from a signal
        self._lock = threading.Lock()
        self._is_closed = False
        self._engine: Engine | None = None
        self._host: EngineHost | None = None
        self._record: Path | None = None
        self.exit_code = 0

    def stop(self) -> None:
        self._stops.put(None)

    def wait(self) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                self._stops.get(timeout=_PARENT_CHECK_S)  # some platforms deliver signals only between two waits
                return

    def serve(self, answers: BinaryIO) -> None:
        """Load, listen, say so, and leave a record; whatever fails is said to the parent and ends the runner."""
        try:
            self._open()
        except Exception as exc:  # noqa: BLE001  # it goes to whoever asked
            self.exit_code = 1
            _say(answers, handshake.Failed.because(exc))
            self.stop()
            return
        if self._host is not None:
            _say(answers, handshake.Ready(address=self._host.address))
            self._leave_record()

    def close(self) -> None:
        """Take the record back, end the connections, free the model. What is still being loaded is left behind."""
        with self._lock:
            self._is_closed = True
        if self._record is not None:
            records.remove(self._record)
        for owned in (self._host, self._engine):
            if owned is not None:
                owned.close()

    def _open(self) -> None:
        folder = records.prepare(self._order.spec.folder)
        engine = self._load(self._order.spec)
        with self._lock:
            if self._is_closed:
                return
            self._engine = engine
            self._host = EngineHost(engine, listen(folder), self._order.token)
        self._host.start()

    def _leave_record(self) -> None:
        """Hashing a model may take seconds, so it comes when the first answers are on their way."""
        spec, host = self._order.spec, self._host
        try:
            file_hash = spec.file_hash or _hash(spec.path)
            with self._lock:
                if self._is_closed or host is None:
                    return
                record = _record(host, self._order.token, file_hash)
                self._record = records.write(spec.folder, record)
        except (NbllmError, OSError) as exc:
            _logger.warning("%s is not shared with other processes: %s", spec.name, exc)


def _record(host: EngineHost, token: str, file_hash: str) -> records.Record:
    info: EngineInfo = host.engine.info
    return records.new_record("runner", info, address=host.address, token=token, file_hash=file_hash)


def _hash(path: Path) -> str:
    from nbllm.store.hashes import model_hash

    return model_hash(path)


# ---- the process


def _taken_stdout() -> BinaryIO:
    """The parent's end of stdout, for the handshake alone; what else is printed goes to stderr."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return open(answers, "wb", buffering=0)


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is meant for the parent
    no_core_file()
    with contextlib.suppress(OSError):  # Linux: when memory runs out, this goes before a kernel with its variables
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    os.environ["GGML_NO_BACKTRACE"] = "1"  # or a failed assertion calls gdb, and everybody waits for it
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


def _say(answers: BinaryIO, message: handshake.Ready | handshake.Failed) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more: the watch on the parent sees that
        answers.write(handshake.encoded(message))
    answers.close()


def _watch_parent(stop: Callable[[], None]) -> None:
    """Stop when stdin ends, or the parent has died and left its end of it to a fork of its own."""
    parent = os.getppid()
    while _is_wanted(parent):
        pass
    stop()


def _is_wanted(parent: int) -> bool:
    if os.name == "posix":
        readable, _, _ = select.select([0], [], [], _PARENT_CHECK_S)
        if not readable:
            return os.getppid() == parent
    try:
        return bool(os.read(0, 4096))
    except OSError:
        return False


def _leave(code: int) -> NoReturn:
    """End without Python's own clean-up, which waits for threads that may be in C code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
