"""Bar 5: cores shared between kernels, with a busy main thread, and with another busy process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import engine, raw, sides

_SECONDS = 8.0
_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string", "maxLength": 60} for name in ("title", "author", "plot", "ending")},
    "required": ["title", "author", "plot", "ending"],
    "additionalProperties": False,
}


def _worker() -> dict[str, float]:
    """One kernel that answers one prompt after another for some seconds from a common start."""
    start_at = float(sys.stdin.readline() or time.time())
    model = engine.load()
    time.sleep(max(0.0, start_at - time.time()))
    made, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        made += model.chat("Tell me a story.", **engine.endless(model, 32)).usage.completion_tokens
    return {"tokens_per_s": made / (time.perf_counter() - started)}


def _kernels(count: int) -> dict[str, float]:
    start_at = time.time() + 6
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--side", "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    found = [json.loads(child.communicate(f"{start_at}\n")[0].strip().splitlines()[-1]) for child in children]
    return {"tokens_per_s": sum(one["tokens_per_s"] for one in found)}


def _busy_main(width: int, constrained: bool) -> dict[str, float]:
    """One decode thread; the main thread idle, then running pure Python, then another process doing so.

    Where two "cores" are hyper-threads of one, whatever keeps the other busy costs speed: what is lost to the main
    thread itself, through the GIL, is the difference to that other process.
    """
    model = engine.load(threads=1, max_sequences=8)
    options = {"response_format": _SCHEMA, "seed": 3, "temperature": 0.8, "max_tokens": 48} if constrained else None
    model.chat("warm", **(options or engine.endless(model, 4)))

    def run() -> float:
        started = time.perf_counter()
        answers = model.chat_many(engine.prompts(width * 3), **(options or engine.endless(model, 48)))
        return sum(answer.usage.completion_tokens for answer in answers) / (time.perf_counter() - started)

    def threaded() -> float:
        found: list[float] = []
        thread = threading.Thread(target=lambda: found.append(run()))
        thread.start()
        while thread.is_alive():
            sum(range(1000))
        return found[0]

    run()
    idle, busy = run(), threaded()
    with _Neighbour():
        beside = run()
    return {"idle": idle, "busy": busy, "busy/idle (bar 0.85)": busy / idle, "busy/beside a process": busy / beside}


class _Neighbour:
    """A process that keeps one core busy."""

    def __enter__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _beside_engine() -> dict[str, float]:
    model = engine.load()
    with _Neighbour():
        time.sleep(0.5)
        started = time.perf_counter()
        answer = model.chat("Tell me a story.", **engine.endless(model, 600))
        return {"tokens_per_s": answer.usage.completion_tokens / (time.perf_counter() - started)}


def _beside_raw(threads: int) -> dict[str, float]:
    loop = raw.RawLoop(1, threads=threads)
    prompt = loop.ids(raw.chatml("Tell me a story."))
    loop.run([prompt], 4)
    with _Neighbour():
        time.sleep(0.5)
        started = time.perf_counter()
        return {"tokens_per_s": loop.run([prompt], 600) / (time.perf_counter() - started)}


SIDES = {
    "worker": _worker,
    "one-kernel": lambda: _kernels(1),
    "two-kernels": lambda: _kernels(2),
    "busy-main-8": lambda: _busy_main(8, False),
    "busy-main-1": lambda: _busy_main(1, False),
    "busy-main-8-constrained": lambda: _busy_main(8, True),
    "busy-main-1-constrained": lambda: _busy_main(1, True),
    "beside-engine": _beside_engine,
    "beside-raw-1": lambda: _beside_raw(1),
    "beside-raw-2": lambda: _beside_raw(2),
}

if __name__ == "__main__":
    if "--side" not in sys.argv and "--only" not in sys.argv:
        sys.argv += ["--only", *(name for name in SIDES if name != "worker")]
    sides.main(
        __file__,
        SIDES,
        ratios={
            "5 two kernels/one (bar 0.9)": ("tokens_per_s", "two-kernels", "one-kernel"),
            "5 engine/raw 1 thread (bar 0.9 of the better)": ("tokens_per_s", "beside-engine", "beside-raw-1"),
            "5 engine/raw 2 threads (bar 0.9 of the better)": ("tokens_per_s", "beside-engine", "beside-raw-2"),
        },
    )
