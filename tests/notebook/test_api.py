"""`%llm api` and `%llm share`, without a server and with what a server's file says."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from nbllm.config import load_config
from nbllm.errors import InvalidRequestError
from nbllm.notebook import api
from nbllm.session import sharing
from tests.notebook.conftest import Notebook

HUB = ("JUPYTERHUB_SERVICE_PREFIX", "JUPYTERHUB_SERVICE_URL", "JUPYTERHUB_PUBLIC_URL", "JPY_PARENT_PID")
HEALTHY = b'{"status":"ok"}'


class Servers:
    """What `list_running_servers` gives."""

    def __init__(self) -> None:
        self.infos: list[dict[str, Any]] = []

    def add(self, url: str, pid: int | None = None) -> None:
        self.infos.append({"url": url, "pid": os.getppid() if pid is None else pid, "token": "the notebook's token"})


@pytest.fixture(autouse=True)
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    servers = Servers()
    monkeypatch.setattr("jupyter_server.serverapp.list_running_servers", lambda: iter(servers.infos))
    for name in HUB:
        monkeypatch.delenv(name, raising=False)
    return servers


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server whose every page is the parameter: status and body."""
    status, body = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_terminal_is_told_of_the_command(notebook: Notebook) -> None:
    assert notebook.run("%llm api").success
    assert "No notebook server runs this kernel" in notebook.plain
    assert "jupyter nbllm" in notebook.plain
    assert "base URL   http://localhost:4891/v1" in notebook.plain


@pytest.mark.parametrize("page", [(200, HEALTHY)], indirect=True)
def test_lines_are_for_the_server_that_runs_the_kernel(notebook: Notebook, servers: Servers, page: str) -> None:
    servers.add("http://localhost:1/", pid=os.getppid() + 1)
    servers.add(f"{page}base/")
    assert notebook.run("%llm api").success
    assert f"base URL   {page}base/v1\n" in notebook.plain
    assert "answers as OpenAI's API does" in notebook.plain
    assert "the notebook's token" not in notebook.plain
    for client in ("openai.OpenAI(", "ChatOpenAI(", "check_embedding_ctx_length=False", "curl", "Zed"):
        assert client in notebook.plain
    assert notebook.plain.count("$NBLLM_API_KEY") == 3
    assert notebook.plain.count('os.environ["NBLLM_API_KEY"]') == 3
    assert 'model="toy"' in notebook.plain


def test_python_lines_are_python(notebook: Notebook) -> None:
    for key in (None, "sk-1"):
        lines = api.manual("toy", key).split("LangChain\n")[1].split("\n\ncurl")[0]
        compile("\n".join(line.removeprefix("    ") for line in lines.splitlines()), "lines", "exec")


def test_parent_that_the_launcher_names_counts(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_PARENT_PID", "4711")
    servers.add("http://localhost:8888/", pid=4711)
    assert api.running_server() == api.Server("http://localhost:8888/v1")


@pytest.mark.parametrize("page", [(404, b"{}"), (200, b"<html>login"), (200, b'"ok"')], indirect=True)
def test_server_without_nbllm_is_told(notebook: Notebook, servers: Servers, page: str) -> None:
    servers.add(page)
    assert notebook.run("%llm api").success
    assert f"does not answer at {page}v1: install nbllm" in notebook.plain


def test_server_that_cannot_be_asked_is_given_the_benefit_of_the_doubt(notebook: Notebook, servers: Servers) -> None:
    servers.add("http://127.0.0.1:1/")
    assert notebook.run("%llm api").success
    assert "base URL   http://127.0.0.1:1/v1" in notebook.plain


@pytest.mark.parametrize(
    ("public", "shown"),
    [
        pytest.param("https://hub.example/user/ann/", "https://hub.example/user/ann/v1", id="public URL"),
        pytest.param("", "https://YOUR-HUB/user/ann/v1", id="prefix alone"),
    ],
)
def test_hub_has_an_address_inside_and_one_outside(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, public: str, shown: str
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ann/")
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_URL", public)
    monkeypatch.setenv("JUPYTERHUB_SERVICE_URL", "http://10.0.0.1:8888/user/ann/")
    assert api.running_server() == api.Server("http://10.0.0.1:8888/user/ann/v1", shown)
    servers.add("http://127.0.0.1:8888/user/ann/")
    assert api.running_server() == api.Server("http://127.0.0.1:8888/user/ann/v1", shown)


def test_unix_socket_is_said_to_be_out_of_reach(servers: Servers) -> None:
    servers.add("http+unix://%2Frun%2Fjupyter.sock/")
    with pytest.raises(InvalidRequestError, match="jupyter nbllm starts a server with a port"):
        api.running_server()


def test_key_is_made_and_shown_once(notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBLLM_KEYS_FILE", str(tmp_path / "keys.json"))
    assert notebook.run("%llm api --key laptop").success
    (key,) = set(re.findall(r"sk-[A-Za-z0-9]{48,}", notebook.plain))
    assert f"key        {key}\n" in notebook.plain
    assert f"Bearer {key}" in notebook.plain
    assert "NBLLM_API_KEY" not in notebook.plain
    assert "in the notebook's file" in notebook.plain
    assert "jupyter nbllm keys revoke laptop" in notebook.plain
    stored = load_config().keys_file.read_text()
    assert "laptop" in stored
    assert key not in stored


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("api --kye laptop", "write %llm api [--key NAME]", id="unknown option"),
        pytest.param("api --key", "write %llm api [--key NAME]", id="no name"),
        pytest.param("api --key --scopes", "a word such as laptop", id="option as a name"),
        pytest.param("api --key ''", "NAME", id="empty name"),
        pytest.param("share maybe", "write %llm share on or %llm share off", id="neither on nor off"),
        pytest.param("share on off", "write %llm share [on|off]", id="both"),
        pytest.param("attach toy now", "write %llm attach [NAME]", id="two names"),
        pytest.param("attach tou", "toy", id="unknown model"),
    ],
)
def test_wrong_line_is_one_line_of_error(
    notebook: Notebook, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    assert not notebook.run(f"%llm {line}").success
    shown = capsys.readouterr()
    assert says in shown.out + shown.err
    assert (shown.out + shown.err).strip().count("\n") == 0


def test_share_says_and_sets_the_state(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_state", sharing._State(wish=False))
    for line, says in [("", "off"), (" on", "on"), ("", "on"), (" off", "off"), ("", "off")]:
        assert notebook.run(f"%llm share{line}").success
        assert notebook.plain.startswith(f"sharing is {says}: ")
        assert sharing.is_on() == (says == "on")


def test_attach_loads_there_and_cells_use_it(notebook: Notebook) -> None:
    assert notebook.run("%llm attach toy").success
    assert notebook.models.load_options == {"engine": "server"}
    assert notebook.plain == "scripted\ncells use this one"
    assert notebook.shell.magics_manager.registry["ChatMagics"].desk.settings.model == "toy"


@pytest.mark.parametrize("page", [(200, HEALTHY)], indirect=True)
def test_address_can_be_kept_and_its_key_is_not_shown(notebook: Notebook, servers: Servers, page: str) -> None:
    servers.add(page)
    assert notebook.run("api = %llm api").success
    assert notebook.outputs == []
    kept = notebook.shell.user_ns["api"]
    assert (kept.base_url, kept.api_key, kept.model) == (f"{page}v1", "the notebook's token", "toy")
    assert "token" not in repr(kept) + repr(api.running_server())
    assert notebook.run("api").success
    assert notebook.plain.count("the notebook's token") == 0


def test_server_without_a_key_is_given_one_all_the_same(notebook: Notebook) -> None:
    assert notebook.run("api = %llm api").success
    assert notebook.shell.user_ns["api"].api_key == "none"
