"""`jupyter nbllm` in Ollama's place: its variables, its port, its paths."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tornado.httputil import HTTPHeaders

from nbllm.config import OLLAMA_PORT
from nbllm.errors import ParameterError
from nbllm.server.access import Guard, Policy, policy_for
from nbllm.server.alone import ModelServer, RootHandler
from nbllm.server.handlers.ollama_routes import HANDLERS, ollama_routes
from nbllm.server.keys import KeyStore
from nbllm.server.origins import AllowedOrigins

_ORIGINS = AllowedOrigins.parse(())


def _basic(pair: str) -> HTTPHeaders:
    return HTTPHeaders({"Authorization": "Basic " + base64.b64encode(pair.encode()).decode(), "Host": "localhost"})


@pytest.fixture
def guard(tmp_path: Any) -> Guard:
    policy = policy_for(
        "0.0.0.0", origins=_ORIGINS, is_alone=True, is_under_hub=False, has_keys=False, has_password=True
    )
    return Guard(policy, KeyStore(tmp_path / "keys.json"), notebook_token=lambda: "token", password="ada:p w:é")


def test_address_of_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "0.0.0.0:11434")
    server = ModelServer()
    assert (server.ip, server.port) == ("0.0.0.0", 11434)


def test_words_of_the_command_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "0.0.0.0:11434")
    server = ModelServer(ip="127.0.0.1", port=5000)
    assert (server.ip, server.port) == ("127.0.0.1", 5000)


def test_usual_address_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    monkeypatch.delenv("JUPYTER_PORT", raising=False)
    assert ModelServer().port == 4891
    monkeypatch.setenv("JUPYTER_PORT", "4999")
    assert ModelServer().port == 4999


def test_start_says_where_ollamas_api_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelServer, "connection_url", "http://localhost:11434/")
    server = ModelServer(port=OLLAMA_PORT)
    service = SimpleNamespace(guard=SimpleNamespace(policy=Policy(origins=_ORIGINS, is_open=True)))
    server.web_app = cast("Any", SimpleNamespace(settings={"nbllm_service": service}))
    said = server.running_server_info().splitlines()[0]
    assert said.startswith("nbllm serves Ollama's API at http://localhost:11434/api, OpenAI's API at http://localhost")


@pytest.mark.parametrize(
    ("port", "said"),
    [(OLLAMA_PORT, "Ollama is running"), (4891, "nbllm is running; its API is at v1/models\n")],
)
def test_root_says_what_clients_of_the_port_expect(port: int, said: str) -> None:
    heard: list[str] = []
    handler = cast("Any", SimpleNamespace(serverapp=SimpleNamespace(port=port)))
    handler.finish = lambda words, set_content_type: heard.append(words)
    RootHandler.get(handler)
    assert heard == [said]


def test_routes_are_at_the_root_only_when_alone() -> None:
    beside, alone = ollama_routes(is_alone=False), ollama_routes(is_alone=True)
    assert all(pattern.startswith("/nbllm/ollama") for pattern, _ in beside)
    assert {f"/api/{name}/?" for name in HANDLERS} <= {pattern for pattern, _ in alone}
    assert set(beside) <= set(alone)


# ---- the password


def test_password_opens_all_but_kernels(guard: Guard) -> None:
    access = guard.check(_basic("ada:p w:é"), "203.0.113.5")
    assert access.granted
    assert access.scopes == {"chat", "embeddings", "models", "manage"}


@pytest.mark.parametrize("pair", ["ada:wrong", "eve:p w:é", "p w:é", "", ":"])
def test_other_pairs_do_not(guard: Guard, pair: str) -> None:
    assert guard.check(_basic(pair), "127.0.0.1").status == 401


def test_password_is_needed_on_this_machine_too(guard: Guard) -> None:
    assert guard.check(HTTPHeaders({"Host": "localhost"}), "127.0.0.1").status == 401


def test_no_password_lets_nobody_in(tmp_path: Any) -> None:
    guard = Guard(Policy(origins=_ORIGINS), KeyStore(tmp_path / "keys.json"), notebook_token=lambda: "")
    assert guard.check(_basic(":"), "127.0.0.1").status == 401


def test_other_machines_need_a_password_or_a_key() -> None:
    with pytest.raises(ParameterError, match="lets other machines in"):
        policy_for("0.0.0.0", origins=_ORIGINS, is_alone=True, is_under_hub=False, has_keys=False)
