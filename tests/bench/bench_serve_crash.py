"""Bar 4 of the server: a runner killed amid 8 streams, and 200 clients that give up after 0.2 s.

crash     8 clear errors, the server goes on, the next request is answered within 3 s
give-up   one more request is answered at once, and no process, sequence, socket or memory (5 %) is left behind
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil

from tests.bench import serving, sides

_STREAMS = 8
_CLIENTS = 20 if serving.SMOKE else 200


def _runner(server: serving.Server) -> psutil.Process:
    (runner,) = psutil.Process(server.pid).children()
    return runner


async def _killed(server: serving.Server) -> tuple[list[serving.Streamed], float]:
    body = server.body("Tell me a long story.", 400)
    streams = [asyncio.create_task(serving.stream(server, body)) for _ in range(_STREAMS)]
    await asyncio.sleep(1.5)
    os.kill(_runner(server).pid, signal.SIGABRT)
    found = await asyncio.gather(*streams)
    started = time.perf_counter()
    after = await serving.stream(server, server.body("Hello.", 4))
    assert after.num_tokens == 4, after
    return found, time.perf_counter() - started


def _crash() -> dict[str, float]:
    with serving.nbllm() as server:
        serving.warmed(server)
        found, next_s = asyncio.run(_killed(server))
        is_alive = psutil.pid_exists(server.pid)
    return {
        "errors (bar 8)": sum(bool(one.error) for one in found),
        "next_s (bar 3)": next_s,
        "server_lives": is_alive,
    }


async def _impatient(server: serving.Server) -> float:
    async def one(index: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                body = server.body(f"Story number {index}", 400, stream=bool(index % 2))
                async with serving.asked(server, body) as reader:
                    await reader.read()

    for start in range(0, _CLIENTS, 10):
        await asyncio.gather(*(one(start + index) for index in range(10)))
    started = time.perf_counter()
    after = await serving.stream(server, server.body("Hello.", 4))
    assert after.num_tokens == 4, after
    return time.perf_counter() - started


def _held(server: serving.Server) -> dict[str, float]:
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    return {
        "processes": len(processes),
        "files": sum(process.num_fds() for process in processes),
        "threads": sum(process.num_threads() for process in processes),
        "megabytes": sum(process.memory_info().rss for process in processes) / 2**20,
    }


def _give_up() -> dict[str, float]:
    with serving.nbllm() as server:
        serving.warmed(server)
        asyncio.run(_impatient(server))  # so that what is made once is there: threads, caches, counters
        before = _held(server)
        next_s = asyncio.run(_impatient(server))
        time.sleep(1)
        after = _held(server)
    grown = {f"{name}_grown": after[name] - before[name] for name in before if name != "megabytes"}
    return {"next_s": next_s, "memory (bar 1.05)": after["megabytes"] / before["megabytes"], **grown}


if __name__ == "__main__":
    sides.main(__file__, {"crash": _crash, "give-up": _give_up}, repeats=1)
