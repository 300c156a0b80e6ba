"""A notebook server with the extension, for tests: in a thread of this process over toy models, or as the command.

    with Site(folder) as site:                      # or the fixture `site`
        site.post("v1/chat/completions", {...})     # as the notebook's own user
        site.cast.engines = [ScriptedEngine()]      # what the next models to be loaded are

The engines are reached as real ones are, over sockets of `EngineHost`; only the processes are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from traitlets.config import Config

from nbllm.engine.interface import Engine
from nbllm.errors import EngineClosedError
from nbllm.runner import spawn
from nbllm.runner.client import RemoteEngine
from nbllm.runner.host import EngineHost
from nbllm.runner.listener import listen
from nbllm.runner.spec import RunnerSpec
from nbllm.server.access import Policy
from nbllm.server.keys import KeyStore
from nbllm.server.service import Limits, Service
from nbllm.testing import ScriptedEngine, toy_engine
from nbllm.testing.script import Piece
from nbllm.wire.sse import SseParser
from tests.store.gguf_writer import tiny_model, write

TOY, OTHER, BROKEN = "toy", "teams/other:7b", "broken"
CHAT, COMPLETIONS, EMBEDDINGS = "v1/chat/completions", "v1/completions", "v1/embeddings"
BASE_URL = "/a%40b/"
WAIT_S = 10.0
_ROOT = Path(__file__).parents[2]
_pids = itertools.count(100_000_000)  # above any real one
_T = TypeVar("_T")


def chat(text: str = "Hi", **more: Any) -> dict[str, Any]:
    """A request's body."""
    return {"model": TOY, "messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0, **more}


def completion(prompt: Any = "Hi", **more: Any) -> dict[str, Any]:
    return {"model": TOY, "prompt": prompt, "max_tokens": 8, "temperature": 0, **more}


# ---- runners without processes


class FakeRunner:
    """An engine behind a real socket. Implements `runner.entry.Runner`."""

    def __init__(self, spec: RunnerSpec, engine: Engine) -> None:
        self.spec, self.pid, self.inner = spec, next(_pids), engine
        token = secrets.token_hex(8)
        self.host = EngineHost(engine, listen(spec.folder), token)
        self.host.start()
        self._callbacks: list[Callable[[], None]] = []
        self.is_alive = True
        self.engine = RemoteEngine(self.host.address, token=token, on_lost=self._lost)

    def when_gone(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if not self.is_alive:
            callback()

    def stop(self) -> None:
        self.is_alive = False
        self.engine.close()
        self.host.close()
        self.inner.close()

    def die(self) -> None:
        """As a process that aborts: its connections end, and nobody said why."""
        self.host.close()

    def _lost(self) -> None:
        self.is_alive = False
        for callback in self._callbacks:
            callback()


@dataclass
class Cast:
    """What loads, instead of processes.

    Attributes:
        engines: for the next loads; a toy where there are no more.
        errors: what the next loads fail with.
        gate: closed, nothing finishes loading.
    """

    engines: list[Engine] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    runners: list[FakeRunner] = field(default_factory=list)
    specs: list[RunnerSpec] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    num_given_up: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def start(self, spec: RunnerSpec, cancelled: threading.Event) -> FakeRunner:
        self.specs.append(spec)
        while not self.gate.wait(0.005):
            if cancelled.is_set():
                self.num_given_up += 1
                raise EngineClosedError("given up")
        if self.errors:
            raise self.errors.pop(0)
        engine = self.engines.pop(0) if self.engines else toy_engine(max_sequences=spec.options.max_sequences)
        self.runners.append(FakeRunner(spec, engine))
        return self.runners[-1]


# ---- a server in a thread


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in it; that it has OpenAI's shape is checked."""
        told = self.json()
        assert set(told) == {"error"}
        error: dict[str, Any] = told["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.headers["Content-Type"].startswith("application/json")
        assert error["message"]
        return error

    @property
    def events(self) -> list[Any]:
        """Of a stream, decoded; the end as it is."""
        assert self.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return [data if data == "[DONE]" else json.loads(data) for data in SseParser().push(self.body)]


class Client:
    """Asks over kept connections, one a thread."""

    def __init__(self, port: int, base_url: str, headers: Mapping[str, str]) -> None:
        self.port, self.base_url, self.headers = port, base_url, dict(headers)
        self._local = threading.local()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.base_url}"

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        bare: bool = False,
        timeout_s: float = WAIT_S,
    ) -> Answer:
        """Ask.

        Args:
            body: sent as JSON unless it is bytes, or an iterator over them, which are sent in chunks.
            bare: without the key of the notebook's user.
        """
        data = body if body is None or isinstance(body, bytes | Iterator) else json.dumps(body).encode()
        sent = {**({} if bare else self.headers), **({} if data is None else {"Content-Type": "application/json"})}
        sent |= headers or {}
        connection = self._connection(timeout_s)
        try:
            connection.request(method, self.base_url + path, data, {k: v for k, v in sent.items() if v})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except BaseException:
            connection.close()
            raise

    def get(self, path: str, **more: Any) -> Answer:
        return self.request("GET", path, **more)

    def post(self, path: str, body: Any, **more: Any) -> Answer:
        return self.request("POST", path, body, **more)

    def raw(self, data: bytes) -> socket.socket:
        """A connection of one's own, on which these bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        connection.sendall(data)
        return connection

    def raw_post(self, path: str, body: dict[str, Any], *, headers: str = "", bare: bool = False) -> socket.socket:
        """Ask without waiting for anything."""
        data = json.dumps(body).encode()
        key = "" if bare else "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"POST {self.base_url}{path} HTTP/1.1\r\nHost: localhost\r\n{key}{headers}"
        return self.raw(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

    def close(self) -> None:
        """This thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return connection


class _Log(logging.Handler):
    """Attributes:
    lines: what was logged, formatted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def access_lines(self, count: int = 1) -> list[str]:
        """At least so many, which are written after the answers have gone out."""
        wait_until(lambda: len(self._access_lines()) >= count)
        return self._access_lines()

    def _access_lines(self) -> list[str]:
        return [line for line in self.lines if line.startswith("key=")]


class Site(Client):
    """A Jupyter server with the extension, on an event loop in a thread.

    Args:
        traits: of NbllmApp.

    Attributes:
        cast: what loads; replace it for other engines.
    """

    def __init__(self, folder: Path, **traits: Any) -> None:
        self.folder = folder
        self.models_dir, self.runtime_dir = folder / "models", folder / "run"
        self.keys_file = folder / "keys.json"
        self.cast = Cast()
        for name in (TOY, OTHER):
            write(self.models_dir / f"{name}.gguf", tiny_model())
        write(self.models_dir / f"{BROKEN}.gguf", b"no model")
        self._traits = {
            "models_dir": str(self.models_dir),
            "runtime_dir": str(self.runtime_dir),
            "keys_file": str(self.keys_file),
            "registry": "none",
            "default_model": TOY,
            "model_aliases": {"gpt-4": TOY},
            "allow_origins": ["http://localhost:*"],
            **traits,
        }
        self._ready: threading.Event = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="site", daemon=True)

    def __enter__(self) -> Site:
        self._thread.start()
        assert self._ready.wait(60)
        if self._failure is not None:
            raise self._failure
        self._usual: tuple[Limits, Policy] = (self.service.limits, self.service.guard.policy)
        super().__init__(self._port, BASE_URL, {"Authorization": f"Bearer {self.token}"})
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    @property
    def keys(self) -> KeyStore:
        return KeyStore(self.keys_file)

    @property
    def in_flight(self) -> int:
        return self.service._num_in_flight

    def scripted(self, *answers: Piece | Iterable[Piece], until_cancelled: bool = False) -> ScriptedEngine:
        """What is loaded next says this, one answer after another."""
        engine = ScriptedEngine()
        for answer in answers:
            engine.enqueue(answer, until_cancelled=until_cancelled)
        self.cast.engines.append(engine)
        return engine

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """On the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def listen_to_log(self) -> None:
        """Again, after another application of this process has taken the logger, which all of them share."""
        self.app.log.handlers = [self.log]
        self.app.log.setLevel(logging.INFO)

    def reset(self) -> None:
        """As it was in the beginning: no runners, the usual limits, no keys."""
        self.cast.gate.set()
        wait_until(lambda: self.in_flight == 0)
        self.service.limits, self.service.guard.policy = self._usual
        self.keys_file.unlink(missing_ok=True)
        self.run(self._reset())
        self._remove_made_models()
        self.cast = Cast()
        self.log.lines.clear()

    def _remove_made_models(self) -> None:
        for path in self.models_dir.iterdir():
            if path.is_dir() and path.name != OTHER.partition("/")[0]:
                shutil.rmtree(path)

    async def _reset(self) -> None:
        router = self.service.router
        await router.supervisor.close()
        router.supervisor._is_closed = router.supervisor._is_watched = False
        router.supervisor._backoffs.clear()
        router.kernels.close()
        router.kernels._read_at = float("-inf")
        self.service.guard._attempts._buckets.clear()
        self.service.guard._cause = ""

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  # for the thread that waits
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        from jupyter_server.serverapp import ServerApp

        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        config = Config({"NbllmApp": self._traits, "ServerApp": {"jpserver_extensions": {"nbllm": True}}})
        config.IdentityProvider.token = self.token = secrets.token_hex(16)
        app = ServerApp(
            base_url=BASE_URL, config=config, open_browser=False, allow_root=True, root_dir=str(self.folder)
        )
        app.init_signal = lambda: None  # type: ignore[method-assign]  # this is not the main thread
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JUPYTER_NO_CONFIG", "1")  # other extensions of this machine are none of a test's business
            patch.setattr(spawn, "start", self._start)
            patch.setattr(spawn, "fits", lambda spec: True)
            app.initialize(argv=[], new_httpserver=False)
        self.app = app
        self.log = _Log()
        self.listen_to_log()
        self.service: Service = app.web_app.settings["nbllm_service"]
        app.start_app()
        server = HTTPServer(app.web_app, max_body_size=app.max_body_size, max_buffer_size=app.max_buffer_size)
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        self._port = sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.stop()
        await server.close_all_connections()
        await app._cleanup()

    def _start(self, spec: RunnerSpec, cancelled: threading.Event, *, timeout_s: float) -> FakeRunner:
        return self.cast.start(spec, cancelled)


def wait_until(is_so: Callable[[], object], timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.002)


# ---- the command


@contextlib.contextmanager
def real_server(folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Client]:
    """`jupyter nbllm` as a process, with the real models of this machine; nothing of it is left afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "HOME": folder / "home",
        "NBLLM_RUNTIME_DIR": folder / "run",
        "NBLLM_KEYS_FILE": folder / "keys.json",
        "NBLLM_MODELS_DIR": folder / "models",
        "JUPYTER_CONFIG_DIR": folder / "jupyter",
        "JUPYTER_RUNTIME_DIR": folder / "jupyter-run",
        "PYTHONPATH": _ROOT,
    }
    (folder / "home").mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("wb") as output:
        process = psutil.Popen(
            [sys.executable, "-m", "nbllm.server.command", f"--port={port}", *options],
            env={**os.environ, **{name: str(value) for name, value in settings.items()}, **(environment or {})},
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    client = Client(port, "/", {})
    try:
        wait_until(lambda: process.poll() is not None or _is_answered(client), 60)
        assert process.poll() is None, log.read_text()
        yield client
    finally:
        client.close()
        children = process.children(recursive=True)
        process.terminate()
        try:
            process.wait(20)
        finally:
            _, left = psutil.wait_procs([process, *children], timeout=10)
            for one in left:
                one.kill()
        assert not left, f"left behind: {left}"


def _is_answered(client: Client) -> bool:
    try:
        return client.get("v1/health").status == 200
    except OSError:
        client.close()
        return False
