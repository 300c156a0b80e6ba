"""Tasks that may crash, in processes of their own."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from nbllm.errors import EngineError, ModelLoadError
from nbllm.runner.process import apart, command, ending

_LAST_WORDS = 400
_WAIT_S = 0.5
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",  # these tasks have no engine's tuner, and spinning beside other work takes minutes
    "GGML_NO_BACKTRACE": "1",  # or a failed assertion calls gdb
}

Progress = Callable[[int, int], None]


def run(task: str, on_progress: Progress | None = None, **arguments: Any) -> Any:
    """What a task of `worker` returns. An interrupt ends it at once.

    Raises:
        ModelLoadError: what the task said is wrong.
        EngineError: its process ended without a word of it.
    """
    with tempfile.TemporaryFile() as errors:
        process = _started(errors)
        try:
            return _result(process, errors, {"task": task, **arguments}, on_progress)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()


def _started(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command("nbllm.session.tuning.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **_ENVIRONMENT},
            **apart(),
        )
    except OSError as error:
        raise EngineError(f"no process could be started: {error.strerror or error}") from error


def _result(
    process: subprocess.Popen[bytes], errors: IO[bytes], order: dict[str, Any], on_progress: Progress | None
) -> Any:
    assert process.stdin is not None
    with suppress(OSError):  # it has died at once; the end of its answers tells
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(process, lines), name="nbllm-tune-listen", daemon=True).start()
    while line := _next(lines):
        message = json.loads(line)
        if "error" in message:
            raise ModelLoadError(message["error"])
        if "result" in message:
            return message["result"]
        if on_progress is not None:
            on_progress(message["done"], message["total"])
    raise EngineError(_ending(process.wait(), errors))


def _listen(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    with suppress(OSError, ValueError):  # it was closed, because nobody waits any more
        for line in process.stdout:
            lines.put(line)
    lines.put(b"")


def _next(lines: queue.SimpleQueue[bytes]) -> bytes:
    while True:  # in steps, so that an interrupt gets through on every platform
        with suppress(queue.Empty):
            return lines.get(timeout=_WAIT_S)


def _ending(code: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    words = errors.read()[-_LAST_WORDS:].decode("utf-8", errors="replace").strip().splitlines()
    return f"its process {ending(code)}" + (f": {words[-1]}" if words else "")
