"""Starts runners, and holds on to them."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from nbllm.config import load_config
from nbllm.core import ModelInfo
from nbllm.errors import EngineClosedError, EngineError, InsufficientMemoryError, NbllmError
from nbllm.runner import handshake, records
from nbllm.runner.client import RemoteEngine
from nbllm.runner.errors import LoadCrashError
from nbllm.runner.process import apart, command, ending

if TYPE_CHECKING:
    from nbllm.runner.listener import Address
    from nbllm.runner.spec import RunnerSpec

GRACE_S = 5.0
_TERM_GRACE_S = 1.0
_CANCEL_CHECK_S = 0.1
_LAST_OUTPUT_S = 1.0
"""How long a dead runner's output is waited for: a process of its own may keep the pipe open."""
_MAX_LINES, _MAX_LINE_CHARACTERS = 40, 500
_SHOWN_LINES = 6
_logger = logging.getLogger(__name__)


class RunningRunner:
    """A runner's process, and the connection to its engine. Get one from `start`.

    Attributes:
        engine: over the connection of this runner.
    """

    engine: RemoteEngine

    def __init__(self, spec: RunnerSpec, command: list[str]) -> None:
        self.spec = spec
        self._address: Address | None = None
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._gone = threading.Event()
        self._process = _popen(command)
        self._outcome: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._listening = self._thread(self._listen, "errors")
        self._thread(self._await_outcome, "outcome")
        self._thread(self._await_end, "end")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative is the number of the signal that ended it."""
        return self._process.returncode if self._gone.is_set() else None

    @property
    def is_alive(self) -> bool:
        """Whether it runs and its engine can be asked."""
        return not self._gone.is_set() and self.engine.is_alive

    @property
    def rss_bytes(self) -> int:
        """Memory that it holds, the mapped weights included; 0 when it is gone."""
        import psutil

        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self.pid).memory_info().rss) if not self._gone.is_set() else 0
        return 0

    @property
    def last_words(self) -> str:
        """The last lines that it wrote to stderr."""
        return "\n".join(list(self._lines)[-_SHOWN_LINES:])

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call back once the process has ended, from a thread of this runner; at once if it has."""
        with self._lock:
            if not self._gone.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End the connection and the process, and wait until it is gone. Twice is harmless, and any thread may.

        Args:
            grace_s: until it is no longer asked but told.
        """
        if hasattr(self, "engine"):  # the connection may not have noticed yet that there is nobody at its other end
            (self.engine.abandon if self._gone.is_set() else self.engine.close)()
        with contextlib.suppress(OSError, ValueError):
            _pipe(self._process.stdin).close()
        if self._gone.wait(grace_s):
            return
        _signal(self._process, signal.SIGTERM)
        if self._gone.wait(_TERM_GRACE_S):
            return
        _kill(self._process)
        self._gone.wait()

    def farewell(self) -> str:
        """Why it ended, and its last words."""
        reason = f"the process that ran {self.spec.name} {ending(self._process.returncode)}"
        return f"{reason}: {_on_one_line(self.last_words)}" if self.last_words else reason

    # ---- the start

    def connect(self, token: str, timeout_s: float, cancelled: threading.Event) -> None:
        """Say what to load, wait until it is loaded, and connect; see `start` for what it raises."""
        order = handshake.encoded(handshake.Order(spec=self.spec, token=token))
        with contextlib.suppress(OSError):  # it died at once; the end of stdout tells
            _pipe(self._process.stdin).write(order)
            _pipe(self._process.stdin).flush()
        line = self._line(timeout_s, cancelled)
        if not line:
            self._gone.wait(_TERM_GRACE_S)
            raise LoadCrashError(self.farewell())
        outcome = handshake.decoded_outcome(line)
        if isinstance(outcome, handshake.Failed):
            raise outcome.reason()
        self._address = outcome.address
        self._lines.clear()  # what is said of loading explains no later end
        self.engine = RemoteEngine(outcome.address, token=token, lost_message=self._lost_message)

    def _line(self, timeout_s: float, cancelled: threading.Event) -> bytes:
        deadline = time.monotonic() + timeout_s
        while not cancelled.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                hint = f"; its last words: {_on_one_line(self.last_words)}" if self.last_words else ""
                raise EngineError(f"{self.spec.name} was not loaded within {timeout_s:g} s{hint}")
            with contextlib.suppress(queue.Empty):
                return self._outcome.get(timeout=min(left, _CANCEL_CHECK_S))
        raise EngineClosedError(f"loading {self.spec.name} was given up")

    def _lost_message(self) -> str:
        """Asked for when the connection ends, which comes a moment before the process's own end: so this waits."""
        self._gone.wait(_TERM_GRACE_S)
        if self._gone.is_set():
            return f"{self.farewell()}; send the request again"
        return f"the connection to {self.spec.name} ended; send the request again"

    # ---- the threads

    def _thread(self, target: Callable[[], None], what: str) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"nbllm-runner-{self.pid}-{what}", daemon=True)
        thread.start()
        return thread

    def _await_outcome(self) -> None:
        line = b""
        with contextlib.suppress(OSError, ValueError), _pipe(self._process.stdout) as stdout:
            line = stdout.readline(handshake.MAX_LINE_BYTES)
        self._outcome.put(line)

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError), _pipe(self._process.stderr) as stderr:
            is_new = True
            while data := stderr.readline(_MAX_LINE_CHARACTERS):
                if is_new:
                    self._hear(data.decode("utf-8", errors="replace").strip())
                is_new = data.endswith(b"\n")  # what is left of a long line is dropped

    def _hear(self, line: str) -> None:
        if line:
            self._lines.append(line)
            _logger.debug("%s (%d): %s", self.spec.name, self.pid, line)

    def _await_end(self) -> None:
        self._process.wait()
        self._listening.join(_LAST_OUTPUT_S)
        records.find(self.spec.folder)  # removes the record that it could not
        if self._address is not None:
            records.discard_socket(self._address, self.spec.folder)
        with self._lock:
            self._gone.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def start(spec: RunnerSpec, cancelled: threading.Event | None = None, *, timeout_s: float = 120.0) -> RunningRunner:
    """Start a process that loads the model, and wait until it answers.

    Args:
        cancelled: set by another thread to give up.

    Raises:
        ModelError, InvalidRequestError: what the runner said of the model or the options.
        LoadCrashError: it died while it loaded.
        EngineClosedError: it was given up.
        EngineError: it could not be started, or not in time.
    """
    token = secrets.token_hex(32)
    try:
        runner = RunningRunner(spec, command("nbllm.runner.child"))
    except OSError as exc:
        raise EngineError(f"no process could be started for {spec.name}: {exc.strerror or exc}") from exc
    try:
        runner.connect(token, timeout_s, cancelled or threading.Event())
    except EngineError:
        _kill(runner._process)  # it hangs, or is not wanted: it need not be asked
        runner.stop()
        raise
    except BaseException:
        runner.stop()
        raise
    return runner


def fits(spec: RunnerSpec) -> bool:
    """Whether the memory that is free now would do for the model with the context it would have if it were alone.

    What cannot be told here counts as fitting: the runner says what is wrong.
    """
    from nbllm.engine.machine import available_memory
    from nbllm.engine.plan import plan
    from nbllm.store.gguf import model_info

    options, model = spec.options, model_info(spec.path, spec.name)
    try:
        plan(
            model,
            free_bytes=available_memory(),
            fraction=load_config().memory_fraction,
            context_length=options.context_length or _usual_length(model),
            max_sequences=options.max_sequences,
            kv_tokens=options.kv_tokens,
            kv_type=options.kv_type,
            max_batch=options.max_batch,
        )
    except InsufficientMemoryError:
        return False
    except NbllmError:
        return True
    return True


def _usual_length(model: ModelInfo) -> int:
    """What `plan` tries first; with less memory it would settle for less, rather than have others unloaded."""
    return min(model.context_length or 8192, 8192)


def _popen(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=True, **apart()
    )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # all three are pipes
    return stream


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(OSError):
        process.send_signal(number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it, and on POSIX whatever it started, at once."""
    if os.name == "posix" and process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()


def _on_one_line(text: str) -> str:
    return text.replace("\n", " | ")
