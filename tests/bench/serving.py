"""Servers to measure, one at a time, and clients that measure them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import raw
from tests.bench.engine import TOPICS

ENDS = {"0": -100, "2": -100, "4": -100}
"""The bundled model's ends of a turn, banned, so that every answer has its full length."""
ROOT = Path(__file__).resolve().parents[2]
_NBLLM = "from nbllm.server.extension import NbllmApp; NbllmApp.launch_instance()"
_LLAMA_CPP = (
    "import runpy; from tests.bench.raw import load_safely; load_safely(); "
    "runpy.run_module('llama_cpp.server', run_name='__main__')"
)
SMOKE = bool(os.environ.get("NBLLM_BENCH_SMOKE"))
"""Ask for as little as shows that the script works; the figures mean nothing then."""


@dataclass(frozen=True)
class Server:
    port: int
    pid: int
    model: str
    headers: Mapping[str, str]

    def body(self, text: str, num_tokens: int, **more: Any) -> dict[str, Any]:
        """A greedy streaming chat of exactly so many tokens."""
        messages = [{"role": "user", "content": text}]
        usual = {"temperature": 0, "max_tokens": num_tokens, "stream": True, "logit_bias": ENDS}
        return {"model": self.model, "messages": messages, **usual, **more}


@contextlib.contextmanager
def nbllm(*options: str) -> Iterator[Server]:
    """The stand-alone server."""
    with tempfile.TemporaryDirectory() as folder:
        home = {
            "HOME": folder,
            "NBLLM_RUNTIME_DIR": f"{folder}/run",
            "NBLLM_KEYS_FILE": f"{folder}/keys.json",
            "JUPYTER_CONFIG_DIR": f"{folder}/jupyter",
            "JUPYTER_RUNTIME_DIR": f"{folder}/jupyter-run",
            "PYTHONPATH": str(ROOT),
        }
        port = free_port()
        command = [sys.executable, "-c", _NBLLM, f"--port={port}", "--allow-root", *options]
        with running(command, port, "/v1/health", home) as pid:
            yield Server(port, pid, "smollm2", {})


@contextlib.contextmanager
def llama_server() -> Iterator[Server]:
    """The one that NBLLM_LLAMA_SERVER names."""
    binary = os.environ.get("NBLLM_LLAMA_SERVER")
    if not binary:
        raise SystemExit("name a llama-server of the same llama.cpp in NBLLM_LLAMA_SERVER")
    port = free_port()
    command = [binary, "-m", raw.smollm2(), "-np", "8", "-c", "16384", "--port", str(port), "-t", "2"]
    with running(command, port, "/health", {}) as pid:
        yield Server(port, pid, "smollm2", {})


@contextlib.contextmanager
def llama_cpp_server() -> Iterator[Server]:
    """`python -m llama_cpp.server`."""
    port = free_port()
    options = ["--n_ctx", "2048", "--n_threads", "2", "--port", str(port), "--interrupt_requests", "false"]
    command = [sys.executable, "-c", _LLAMA_CPP, "--model", raw.smollm2(), *options]
    with running(command, port, "/v1/models", {"PYTHONPATH": str(ROOT)}) as pid:
        yield Server(port, pid, "smollm2", {})


def available(sides: Mapping[str, Callable[[], dict[str, float]]]) -> dict[str, Callable[[], dict[str, float]]]:
    """The sides whose servers are on this machine; the others are named on stderr."""
    missing = []
    if not os.environ.get("NBLLM_LLAMA_SERVER"):
        missing.append("llama-server")
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "sse_starlette", "starlette_context")):
        missing.append("llama-cpp-python")
    for name in missing:
        sys.stderr.write(f"{name} is not here: its sides are left out\n")
    return {side: run for side, run in sides.items() if not any(side.startswith(name) for name in missing)}


@contextlib.contextmanager
def running(command: list[str], port: int, path: str, environment: Mapping[str, str]) -> Iterator[int]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        try:
            deadline = time.monotonic() + 120
            while not _is_up(port, path):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"{command[0]} did not start:\n{log.read()[-3000:].decode(errors='replace')}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_up(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- clients: plain sockets on one event loop, which cost the same whichever server they ask


@dataclass
class Streamed:
    """What a stream brought.

    Attributes:
        first_s: from sending to the first text.
        error: of an error event or a status that is not 200; "" for a good end.
    """

    num_tokens: int = 0
    first_s: float = 0.0
    error: str = ""
    status: int = 0


@contextlib.asynccontextmanager
async def asked(server: Server, body: Any, path: str = "/v1/chat/completions") -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**22)
    try:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        more = "".join(f"{name}: {value}\r\n" for name, value in server.headers.items())
        kind = f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write((head + more + kind).encode() + data)
        await writer.drain()
        yield reader
    finally:
        writer.close()


async def stream(server: Server, body: dict[str, Any]) -> Streamed:
    """Read a stream to its end."""
    found, started = Streamed(), time.perf_counter()
    async with asked(server, {**body, "stream_options": {"include_usage": True}}) as reader:
        found.status = int((await reader.readline()).split()[1])
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                _note(found, json.loads(line[6:]), time.perf_counter() - started)
            elif found.status != 200 and line.startswith(b"{"):
                found.error = json.loads(line)["error"]["message"]
            elif line.startswith(b"data: [DONE]"):
                break
    return found


def _note(found: Streamed, event: dict[str, Any], elapsed_s: float) -> None:
    if "error" in event:
        found.error = event["error"]["message"]
    if event.get("usage"):
        found.num_tokens = event["usage"]["completion_tokens"]
    choices = event.get("choices") or [{}]
    if choices[0].get("delta", {}).get("content") and not found.first_s:
        found.first_s = elapsed_s


async def status_of(server: Server, path: str, body: Any = None) -> int:
    async with asked(server, body, path) as reader:
        status = int((await reader.readline()).split()[1])
        await reader.read()
        return status


def warmed(server: Server) -> None:
    asyncio.run(stream(server, server.body("Hello.", 8)))


def prompts(count: int) -> list[str]:
    return [f"Write a paragraph about {TOPICS[i % len(TOPICS)]} for reader number {i * 7 + 3}." for i in range(count)]


async def clients(num_clients: int, texts: list[str], ask: Callable[[str], Awaitable[Streamed]]) -> list[Streamed]:
    """So many clients that take the next text when they have finished one."""
    waiting, found = list(reversed(texts)), []

    async def one() -> None:
        while waiting:
            found.append(await ask(waiting.pop()))

    await asyncio.gather(*(one() for _ in range(num_clients)))
    return found


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
