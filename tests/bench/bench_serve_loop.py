"""Bar 3 of the server: `GET /api/status` of a notebook server while 16 streams run, in milliseconds: p95 under 20."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import serving, sides

_STREAMS = 16
_SECONDS = 2.0 if serving.SMOKE else 15.0
_TOKEN = "t" * 32
_APP = "from jupyter_server.serverapp import ServerApp; ServerApp.launch_instance()"


@contextlib.contextmanager
def _notebook_server() -> Iterator[serving.Server]:
    """A whole one, in which the extension is one of many."""
    with tempfile.TemporaryDirectory() as folder:
        port = serving.free_port()
        options = {
            "ServerApp.port": port,
            "IdentityProvider.token": _TOKEN,
            "ServerApp.open_browser": False,
            "ServerApp.allow_root": True,
            "ServerApp.root_dir": folder,
            "ServerApp.jpserver_extensions": "nbllm=True",
            "NbllmApp.max_sequences": _STREAMS,
            "NbllmApp.runtime_dir": f"{folder}/run",
        }
        command = [sys.executable, "-c", _APP, *(f"--{name}={value}" for name, value in options.items())]
        environment = {"JUPYTER_CONFIG_DIR": folder, "JUPYTER_RUNTIME_DIR": folder, "PYTHONPATH": str(serving.ROOT)}
        with serving.running(command, port, "/v1/health", environment) as pid:
            yield serving.Server(port, pid, "smollm2", {"Authorization": f"Bearer {_TOKEN}"})


async def _asked(server: serving.Server) -> list[float]:
    """Milliseconds of each, one every 50 ms."""
    found = []
    until = time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        started = time.perf_counter()
        status = await serving.status_of(server, "/api/status")
        assert status == 200, status
        found.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.05)
    return found


async def _busy(server: serving.Server) -> tuple[list[float], list[serving.Streamed]]:
    asking = asyncio.create_task(_asked(server))

    async def streams() -> list[serving.Streamed]:
        found = []
        while not asking.done():
            found.append(await serving.stream(server, server.body("Tell me a story.", 8 if serving.SMOKE else 64)))
        return found

    many = await asyncio.gather(*(streams() for _ in range(_STREAMS)))
    return await asking, [one for found in many for one in found]


def _idle_and_busy() -> dict[str, float]:
    with _notebook_server() as server:
        serving.warmed(server)
        idle = asyncio.run(_asked(server))
        busy, found = asyncio.run(_busy(server))
    assert not [one for one in found if one.error], "a stream failed"
    return {
        "idle_p95_ms": serving.percentile(idle, 0.95),
        "busy_p50_ms": serving.percentile(busy, 0.5),
        "busy_p95_ms (bar 20)": serving.percentile(busy, 0.95),
        "num_streams": len(found),
    }


if __name__ == "__main__":
    sides.main(__file__, {"notebook-server": _idle_and_busy}, repeats=3)
