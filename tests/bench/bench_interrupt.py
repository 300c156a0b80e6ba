"""Issue 3, bar 4: 50 interrupts at random moments of a cell, in a real kernel: how long until the kernel is free."""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import sides
from tests.notebook.kernel import Kernel, started

_TIMES = 50
_PREFILL = "%%chat --no-history --max-tokens 3000 -o cache_prompt false\n" + "The quick brown fox jumps. " * 250
_DECODE = "%%chat --no-history --max-tokens 3000\nTell me a very long story about a fox."
_CHECK = (
    "%chat --no-history -s 'You are a helpful assistant.' --temperature 0 --max-tokens 20 "
    "What is the capital of France?"
)


def _interrupted(kernel: Kernel, code: str, after_s: float) -> float:
    """Seconds from the interrupt to the kernel's reply."""
    at: list[float] = []

    def interrupt() -> None:
        at.append(time.perf_counter())
        kernel.manager.interrupt_kernel()

    timer = threading.Timer(after_s, interrupt)

    def watch(message: dict[str, Any]) -> None:
        if message["msg_type"] == "execute_input":
            timer.start()

    ran = kernel.run(code, watch)
    ended = time.perf_counter()
    assert ran.reply["ename"] == "KeyboardInterrupt", ran.reply
    return ended - at[0]


def _interrupts() -> dict[str, float]:
    moments = random.Random(0)
    with started() as kernel:
        kernel.run("%load_ext nbllm")
        kernel.run(_CHECK)
        took, wrong = [], 0
        for index in range(_TIMES):
            took.append(_interrupted(kernel, (_PREFILL, _DECODE)[index % 2], moments.uniform(0.02, 2.0)))
            wrong += "Paris" not in kernel.run(_CHECK).markdown
    took.sort()
    return {"median_s": took[_TIMES // 2], "worst_s (bar 0.2)": took[-1], "wrong_after": wrong}


if __name__ == "__main__":
    sides.main(__file__, {"interrupts": _interrupts}, repeats=1)
