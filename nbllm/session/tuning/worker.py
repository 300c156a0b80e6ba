"""The other side of `process`: does one task and ends.

One line of JSON on stdin says what to do; lines on stdout say how far it is, and at last {"result": ...} or
{"error": "..."}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbllm.errors import NbllmError
from nbllm.runner.process import no_core_file

_Say = Callable[[Mapping[str, Any]], None]


def main() -> None:
    """Do the task that stdin names; end with whoever asked."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what else is printed goes to stderr
    no_core_file()
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        say({"result": _TASKS[order.pop("task")](say, **order)})
    except (NbllmError, MemoryError) as error:
        say({"error": str(error) or "there is not enough memory"})
    os._exit(0)  # without the clean-up of whatever C code may still do


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def _quantize(say: _Say, *, source: str, target: str, kind: str, threads: int) -> None:
    from nbllm.llama.quantize import quantize

    def tell(done: int, total: int) -> None:
        say({"done": done, "total": total})

    quantize(Path(source), Path(target), kind, threads=threads, on_progress=tell)


def _diverge(say: _Say, *, original: str, other: str, kv_type: str, threads: int) -> float:
    from nbllm.session.tuning.divergence import divergence, logits
    from nbllm.session.tuning.sample import TEXT

    say({"done": 0, "total": 2})
    before = logits(original, TEXT, kv_type="f16", threads=threads)
    say({"done": 1, "total": 2})
    return divergence(before, logits(other, TEXT, kv_type=kv_type, threads=threads))


_TASKS: Mapping[str, Callable[..., object]] = {"quantize": _quantize, "diverge": _diverge}
