"""`jupyter nbllm`, started as a user starts it: in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from nbllm.errors import ParameterError
from nbllm.server.alone import ModelServer
from nbllm.server.keys import KeyStore

_REPOSITORY = Path(__file__).parents[2]
_START_S, _STOP_S = 60.0, 30.0
Start = Callable[..., "Alone"]

_GPT4ALL = {
    "model": "gpt4all-lora-quantized",
    "messages": [{"role": "user", "content": "解释量子计算的基本原理"}],
    "temperature": 0.7,
}


class Alone:
    """A running `jupyter nbllm`; `lines` is what it has written to stderr."""

    def __init__(self, folder: Path, words: tuple[str, ...], settings: dict[str, str], stdin: int) -> None:
        self.runtime_dir = folder / "jupyter"
        names = {"PYTHONPATH": str(_REPOSITORY), "JUPYTER_RUNTIME_DIR": str(self.runtime_dir)}
        names |= {"NBLLM_RUNTIME_DIR": str(folder / "engines"), "NBLLM_KEYS_FILE": str(folder / "keys.json")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nbllm.server.command", "--port", "0", *words],
            env=os.environ | names | settings,
            cwd=folder,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._arrived: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self._arrived.put(line.rstrip("\n"))
        self._arrived.put("")

    def wait_until_it_serves(self) -> None:
        while not self.lines or "curl" not in self.lines[-1]:
            line = self._arrived.get(timeout=_START_S)
            assert line, self.lines
            self.lines.append(line)

    @property
    def port(self) -> int:
        match = re.search(r"http://[^/]+:(\d+)/v1", self.lines[-1])
        assert match is not None
        return int(match[1])

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return answer, answer.read()

    def end(self, number: int) -> list[str]:
        """Send a signal, and give what it says from then on."""
        self.process.send_signal(number)
        return self.last_words()

    def last_words(self) -> list[str]:
        """Wait for its end, and give what it has said meanwhile."""
        self.process.wait(_STOP_S)
        return list(iter(partial(self._arrived.get, timeout=_STOP_S), ""))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_STOP_S)
        self._listener.join(_STOP_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _started(folder: Path, *words: str, stdin: int = subprocess.DEVNULL, **settings: str) -> Alone:
    alone = Alone(folder, words, settings, stdin)
    try:
        alone.wait_until_it_serves()
    except BaseException:
        alone.close()
        raise
    return alone


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """One for the tests that only ask."""
    started = _started(tmp_path_factory.mktemp("alone"), "--keep-alive", "-1")
    yield started
    started.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Alone] = []

    def starting(*words: str, stdin: int = subprocess.DEVNULL, **settings: str) -> Alone:
        running.append(_started(tmp_path, *words, stdin=stdin, **settings))
        return running[-1]

    yield starting
    for each in running:
        each.close()


def test_start_says_where_it_is_and_how_to_ask(alone: Alone) -> None:
    where, how = alone.lines
    assert where == f"nbllm serves OpenAI's API at http://localhost:{alone.port}/v1 (Ctrl-C stops it). To ask:"
    assert how.startswith(
        f"  curl http://localhost:{alone.port}/v1/chat/completions -H 'Content-Type: application/json'"
    )
    assert json.loads(how.split("-d '")[1].removesuffix("'"))["model"] == "default"


@pytest.mark.parametrize(
    "path",
    [
        *("login", "logout", "static/style/style.min.css", "favicon.ico", "robots.txt", "tree", "lab", "notebooks/a"),
        *("files/etc/passwd", "view/a", "nbconvert/html/a", "custom/custom.css", "terminals/1"),
        *("api", "api/contents", "api/contents/a", "api/kernels", "api/kernels/1/channels", "api/kernelspecs"),
        *("api/sessions", "api/terminals", "api/config/a", "api/nbconvert", "api/events", "api/events/subscribe"),
        *("api/status", "api/me", "api/spec.yaml", "api/resolvePath", "api/security/csp-report", "api/shutdown"),
        *("kernelspecs/python3/logo-64x64.png", "nothing", "v1/nothing", "nbllm/stop"),
    ],
)
def test_nothing_of_a_notebook_server_is_there(alone: Alone, path: str) -> None:
    (info,) = alone.runtime_dir.glob("jpserver-*.json")
    token = json.loads(info.read_text())["token"]
    for method in ("GET", "POST"):
        answer, body = alone.ask(method, f"/{path}?token={token}", None if method == "GET" else {})
        assert answer.status == 404
        assert "Set-Cookie" not in answer.headers
        error = json.loads(body)["error"]
        is_ollamas = path.partition("/")[0] == "api"  # where Jupyter has its own, a server of models has Ollama's
        assert "unknown path" in error if is_ollamas else error["type"] == "invalid_request_error"


def test_root_says_that_it_runs(alone: Alone) -> None:
    answer, body = alone.ask("GET", "/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert body == b"nbllm is running; its API is at v1/models\n"
    assert alone.ask("HEAD", "/")[0].status == 200
    answer, body = alone.ask("POST", "/", {})
    assert answer.status == 405
    assert "error" in json.loads(body)


def test_models_are_listed_without_a_key(alone: Alone) -> None:
    answer, body = alone.ask("GET", "/v1/models")
    assert answer.status == 200
    assert json.loads(body)["object"] == "list"


def test_prometheus_finds_the_counters(alone: Alone) -> None:
    alone.ask("GET", "/v1/models")
    answer, body = alone.ask("GET", "/metrics")
    assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert b'nbllm_requests_total{route="models",status="200"}' in body
    assert alone.ask("GET", "/metrics", Origin="https://example.org")[0].status == 403


def test_refusals_name_no_token_that_nobody_has_seen(alone: Alone) -> None:
    answer, body = alone.ask("GET", "/v1/models", **{"X-Forwarded-For": "203.0.113.5"})
    assert answer.status == 401
    assert "with a key of  jupyter nbllm keys create" in json.loads(body)["error"]["message"]


def test_page_of_another_origin_gets_nothing(alone: Alone) -> None:
    assert alone.ask("GET", "/v1/models", Origin="https://example.org")[0].status == 403
    assert alone.ask("GET", "/v1/models", Origin="http://localhost:5500")[0].status == 200


def test_jupyter_knows_that_it_runs(alone: Alone) -> None:
    (info,) = alone.runtime_dir.glob("jpserver-*.json")
    assert json.loads(info.read_text())["nbllm"] == "alone"
    assert not list(alone.runtime_dir.glob("*.html"))


@pytest.mark.parametrize("is_open", [True, False])
def test_start_shows_a_key_where_one_is_needed(monkeypatch: pytest.MonkeyPatch, is_open: bool) -> None:
    """Under JupyterHub one is, also on this machine."""
    monkeypatch.setattr(ModelServer, "connection_url", "http://localhost:4891/")
    server = ModelServer()
    policy = SimpleNamespace(is_open=is_open)
    service = SimpleNamespace(guard=SimpleNamespace(policy=policy))
    server.web_app = cast("Any", SimpleNamespace(settings={"nbllm_service": service}))
    assert ("Authorization: Bearer KEY" in server.running_server_info()) is not is_open


def test_port_is_that_of_gpt4all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTER_PORT", raising=False)
    server = ModelServer()
    assert (server.port, server.port_retries) == (4891, 0)


@pytest.mark.skipif(os.name != "posix", reason="no signals to send")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_signal_ends_it_without_a_question(start: Start, number: int) -> None:
    """At a terminal, where Jupyter would ask."""
    terminal, stdin = os.openpty()
    try:
        alone = start(stdin=stdin)
        assert alone.end(number) == []
        assert alone.process.returncode == 0
        assert not list(alone.runtime_dir.glob("jpserver-*"))
    finally:
        os.close(terminal)
        os.close(stdin)


def test_other_machines_need_a_key(start: Start, tmp_path: Path) -> None:
    secret = KeyStore(tmp_path / "keys.json").create("laptop").secret
    alone = start("--ip", "0.0.0.0")
    assert "Authorization: Bearer KEY" in alone.lines[-1]
    assert alone.ask("GET", "/v1/models")[0].status == 401
    assert alone.ask("GET", "/v1/models", Authorization=f"Bearer {secret}")[0].status == 200


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        pytest.param(
            ["--ip", "0.0.0.0"], "", "ip: 0.0.0.0 lets other machines in, and there is no key: make one", id="no key"
        ),
        pytest.param(["--NbllmApp.max_queue=0"], "", "NbllmApp.max_queue: must be a whole number of 1 or", id="trait"),
        pytest.param([], "max_sequences = 0", "must be a whole number of 1 or more", id="settings"),
        pytest.param(["--model", "./nosuch.gguf"], "", "--model: no file './nosuch.gguf' here", id="model"),
    ],
)
def test_refusal_to_start_is_one_line(tmp_path: Path, words: list[str], settings: str, said: str) -> None:
    (tmp_path / "config.toml").write_text(settings)
    alone = Alone(tmp_path, tuple(words), {"NBLLM_CONFIG": str(tmp_path / "config.toml")}, subprocess.DEVNULL)
    (line,) = alone.last_words()
    alone.close()
    assert alone.process.returncode == 1
    assert line.startswith("jupyter nbllm: ")
    assert said in line


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("jupyter_nbllm_config.py", "c.A = b", "cannot be used: NameError: name 'b'", id="Python"),
        pytest.param("jupyter_nbllm_config.json", "{", "cannot be used: JSONDecodeError", id="JSON"),
    ],
)
def test_broken_file_of_settings(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ParameterError, match=said):
        ModelServer(config_dir=str(tmp_path)).load_config_file()


def test_settings_of_notebook_servers_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "jupyter_server_config.py").write_text("c.ServerApp.ip = '0.0.0.0'")
    (tmp_path / "jupyter_nbllm_config.py").write_text("c.ServerApp.port = 4444")
    server = ModelServer(config_dir=str(tmp_path))
    server.load_config_file()
    assert (server.ip, server.port) == ("localhost", 4444)


def test_word_that_means_nothing() -> None:
    with pytest.raises(ParameterError, match="here: means nothing here; see  jupyter nbllm --help"):
        ModelServer().parse_command_line(["--port", "4999", "here"])


def test_port_that_is_taken() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ParameterError, match=f"--port: cannot listen on {port} of 127.0.0.1: Address already in"):
            ModelServer(ip="127.0.0.1", port=port).init_httpserver()


@pytest.mark.parametrize(
    ("ip", "port", "said"),
    [
        ("127.0.0.1", 70_000, "--port: 70000 is no port"),
        ("no.invalid", 0, "--ip: no.inv"),
        ("203.0.113.9", 4891, r"--ip: 203\.0\.113\.9 is no address of this machine"),
    ],
)
def test_address_that_is_none(ip: str, port: int, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        ModelServer(ip=ip, port=port).init_httpserver()


@pytest.mark.model
def test_gpt4alls_documented_request(start: Start, tmp_path: Path, smollm2_path: Path) -> None:
    """Chinese, no key, no max_tokens, and the name of a model that is not here; and its runner goes with the server."""
    (tmp_path / "config.toml").write_text("context_length = 256\n")
    alone = start(NBLLM_CONFIG=str(tmp_path / "config.toml"))
    answer, data = alone.ask("POST", "/v1/chat/completions", _GPT4ALL)
    assert answer.status == 200
    body = json.loads(data)
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] in ("stop", "length")  # the context is short, for the test's sake
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    runners = psutil.Process(alone.process.pid).children(recursive=True)
    assert runners
    alone.end(signal.SIGTERM)
    assert psutil.wait_procs(runners, timeout=_STOP_S)[1] == []
    assert not list((tmp_path / "engines").glob("*.json"))
