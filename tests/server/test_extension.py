"""The routes, asked over HTTP through a real Jupyter server."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tornado.httpclient import HTTPClientError

from nbllm.core import ModelInfo
from nbllm.errors import ModelError
from nbllm.server import naming
from tests.server.serving import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tornado.httpclient import HTTPResponse

    Fetch = Callable[..., Awaitable[HTTPResponse]]

NAMES = ["100% café", "smollm2", "teams/gemma:7b"]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ModelInfo]:
    """Three models that can be loaded and one that cannot; what the test changes is what the server lists."""
    models = [_model(name, tmp_path / f"{index}.gguf") for index, name in enumerate(NAMES)]
    models.append(
        ModelInfo(name="broken", path=str(tmp_path / "x.gguf"), size_bytes=3, problem="it is not a GGUF file")
    )
    monkeypatch.setattr(naming, "named_models", lambda config: {model.name: Path(model.path) for model in models})
    monkeypatch.setattr(naming, "described", lambda path: next(model for model in models if Path(model.path) == path))
    return models


def _model(name: str, path: Path) -> ModelInfo:
    path.write_bytes(b"GGUF")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return ModelInfo(name=name, path=str(path), size_bytes=4)


async def test_models_lists_what_can_be_loaded(jp_fetch: Fetch, catalog: list[ModelInfo]) -> None:
    body = json.loads((await jp_fetch("v1", "models")).body)
    assert body["object"] == "list"
    assert [entry["id"] for entry in body["data"]] == NAMES
    assert body["data"][1] == {"id": "smollm2", "object": "model", "created": 1_700_000_000, "owned_by": "nbllm"}


async def test_models_with_a_bearer_token_needs_no_cookie(
    http_server_client: Any, jp_serverapp: Any, jp_base_url: str, catalog: list[ModelInfo]
) -> None:
    """As OpenAI's clients send it."""
    headers = {"Authorization": f"Bearer {jp_serverapp.identity_provider.token}"}
    answer = await http_server_client.fetch(f"{jp_base_url}v1/models", headers=headers)
    assert len(json.loads(answer.body)["data"]) == len(NAMES)


async def test_models_reads_files_outside_the_event_loop(jp_fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[threading.Thread] = []

    def record(config: object) -> dict[str, Path]:
        used.append(threading.current_thread())
        return {}

    monkeypatch.setattr(naming, "named_models", record)
    await jp_fetch("v1", "models")
    assert used
    assert used[0] is not threading.main_thread()


async def test_models_of_a_file_just_deleted(jp_fetch: Fetch, catalog: list[ModelInfo]) -> None:
    Path(catalog[0].path).unlink()
    body = json.loads((await jp_fetch("v1", "models")).body)
    assert body["data"][0]["created"] == 0


@pytest.mark.parametrize("name", NAMES)
async def test_model_by_name(jp_fetch: Fetch, catalog: list[ModelInfo], name: str) -> None:
    body = json.loads((await jp_fetch("v1", "models", name)).body)
    assert body["id"] == name
    assert body["object"] == "model"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("nothing", "no model 'nothing'", id="unknown"),
        pytest.param("broken", "it is not a GGUF file", id="cannot be loaded"),
        pytest.param("50%s", "no model '50%s'", id="percent"),
    ],
)
async def test_model_that_cannot_be_used(jp_fetch: Fetch, catalog: list[ModelInfo], name: str, said: str) -> None:
    error = await _error(404, jp_fetch("v1", "models", name))
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "model"
    assert error["code"] == "model_not_found"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["v1/chat/nothing", "v1", "v1/"])
async def test_unknown_path_is_a_json_404(jp_fetch: Fetch, path: str, method: str) -> None:
    body = "{}" if method in ("POST", "PUT", "PATCH") else None
    error = await _error(404, jp_fetch(path, method=method, body=body))
    assert method in error["message"]
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


async def test_wrong_method_is_a_json_error(jp_fetch: Fetch) -> None:
    error = await _error(405, jp_fetch("v1", "models", method="POST", body="{}"))
    assert error["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["v1/models", "v1/models/smollm2", "v1/nothing"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}], ids=["no token", "wrong token"])
async def test_stranger_gets_a_json_401_and_no_cookie(
    http_server_client: Any, jp_base_url: str, path: str, headers: dict[str, str]
) -> None:
    answer = await http_server_client.fetch(
        jp_base_url + path, headers=headers, raise_error=False, follow_redirects=False
    )
    assert answer.code == 401
    assert answer.headers["Content-Type"].startswith("application/json")
    assert json.loads(answer.body)["error"]["code"] == "invalid_api_key"
    assert "Set-Cookie" not in answer.headers


async def test_stranger_posting_gets_json(http_server_client: Any, jp_base_url: str) -> None:
    url = f"{jp_base_url}v1/chat/completions"
    answer = await http_server_client.fetch(url, method="POST", body="{}", raise_error=False)
    assert answer.code == 401
    assert json.loads(answer.body)["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("by", ["token", "cookie"])
async def test_the_authorizer_is_asked_about_sessions_and_not_about_the_token(
    http_server_client: Any,
    jp_fetch: Fetch,
    jp_base_url: str,
    jp_serverapp: Any,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    """Who has the token may run any code. A user whom the identity provider knows has what the authorizer gives."""
    login = await jp_fetch("api", "status")
    cookies = "; ".join(cookie.partition(";")[0] for cookie in login.headers.get_list("Set-Cookie"))
    asked: list[tuple[str, str]] = []

    def refuse(handler: object, user: object, action: str, resource: str) -> bool:
        asked.append((action, resource))
        return False

    monkeypatch.setattr(jp_serverapp.authorizer, "is_authorized", refuse)
    headers = {
        "token": {"Authorization": f"token {jp_serverapp.identity_provider.token}"},
        "cookie": {"Cookie": f"{cookies}; _xsrf=abcdef", "X-XSRFToken": "abcdef"},
    }[by]
    answer = await http_server_client.fetch(f"{jp_base_url}v1/models", headers=headers, raise_error=False)
    assert answer.code == (200 if by == "token" else 401)
    assert asked == ([] if by == "token" else [("execute", "nbllm")])


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        pytest.param(ModelError("the models folder is a file"), 503, "the models folder is a file", id="ours"),
        pytest.param(
            RuntimeError("secret"), 500, "Internal error; the notebook server's log has the details", id="not ours"
        ),
    ],
)
async def test_failure_of_the_catalog(
    jp_fetch: Fetch, monkeypatch: pytest.MonkeyPatch, raised: Exception, status: int, said: str
) -> None:
    def fail(config: object) -> dict[str, Path]:
        raise raised

    monkeypatch.setattr(naming, "named_models", fail)
    error = await _error(status, jp_fetch("v1", "models"))
    assert error["message"] == said
    assert error["type"] == "server_error"


async def test_jupyters_own_routes_go_on(jp_fetch: Fetch) -> None:
    assert "version" in json.loads((await jp_fetch("api")).body)


@pytest.mark.model
async def test_models_names_the_bundled_model(jp_fetch: Fetch, smollm2_path: Path) -> None:
    """The real catalog: nothing replaced."""
    body = json.loads((await jp_fetch("v1", "models")).body)
    assert "smollm2" in [entry["id"] for entry in body["data"]]


def test_server_loads_neither_llama_cpp_nor_the_engine() -> None:
    """What import-linter proves of our sources, seen at run time."""
    script = "import json, sys, nbllm.server.extension; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "nbllm.server.handlers.generate" in loaded
    assert not [name for name in loaded if name.startswith(("llama_cpp", "nbllm.llama", "nbllm.engine.local"))]


def test_installing_the_wheel_enables_the_extension(tmp_path: Path) -> None:
    _skip_unless_installed()
    command = [sys.executable, "-m", "jupyter_server", "extension", "list"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    listing = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    assert re.search(r"^ +nbllm enabled$", listing, re.MULTILINE)
    assert re.search(r"^ +nbllm .*OK$", listing, re.MULTILINE), "enabled, but it does not import"


def _skip_unless_installed() -> None:
    try:
        importlib.metadata.version("nbllm")
    except importlib.metadata.PackageNotFoundError:
        if os.environ.get("CI"):
            raise
        pytest.skip("nbllm runs from the source tree here: pip install .")


async def _error(status: int, answer: Awaitable[HTTPResponse]) -> dict[str, Any]:
    with pytest.raises(HTTPClientError) as failure:
        await answer
    response = failure.value.response
    assert response is not None
    assert response.code == status
    assert response.headers["Content-Type"].startswith("application/json")
    error: dict[str, Any] = json.loads(response.body)["error"]
    return error


def test_wrong_setting_is_one_line_and_the_notebook_server_goes_on(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    extensions = "--ServerApp.jpserver_extensions={'nbllm': True}"
    command = [sys.executable, "-m", "jupyter_server", extensions, f"--port={port}", "--no-browser", "--allow-root"]
    log = tmp_path / "log"
    with log.open("w") as output, subprocess.Popen([*command, "--NbllmApp.max_queue=many"], stderr=output) as server:
        try:
            wait_until(lambda: _status(port, "api") == 200, 60)
            assert _status(port, "v1/health") == 404
        finally:
            server.terminate()
            server.wait(30)
    lines = log.read_text().splitlines()
    told = [line for line in lines if "max_queue" in line]
    assert len(told) == 1
    assert "there is no /v1 until this is corrected" in told[0]
    assert not [line for line in lines if "Traceback" in line]


def _status(port: int, path: str) -> int:
    try:
        with urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return 0
