"""Ollama's routes about models, and who may use them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nbllm.server.ollama.capabilities import capabilities
from tests.server.serving import OTHER, TOY, Site, completion, wait_until

API = "nbllm/ollama/api/"


def _failure(answer: Any) -> tuple[int, str]:
    told = answer.json()
    assert set(told) == {"error"}
    assert answer.headers["Content-Type"].startswith("application/json")
    return answer.status, told["error"]


# ---- models


def test_tags(site: Site) -> None:
    models = {model["name"]: model for model in site.get(API + "tags").json()["models"]}
    assert {"toy:latest", OTHER, "gpt-4:latest"} <= set(models)
    assert "broken:latest" not in models
    toy = models["toy:latest"]
    assert toy["model"] == toy["name"]
    assert toy["size"] == (site.models_dir / "toy.gguf").stat().st_size
    assert datetime.fromisoformat(toy["modified_at"]) <= datetime.now(UTC) + timedelta(seconds=1)
    assert toy["digest"] == models["gpt-4:latest"]["digest"] != models[OTHER]["digest"]
    assert len(bytes.fromhex(toy["digest"])) == 32
    assert toy["details"]["family"] == "llama"


def test_ps_has_what_is_loaded(site: Site) -> None:
    assert site.get(API + "ps").json() == {"models": []}
    site.post("v1/completions", completion())
    (model,) = site.get(API + "ps").json()["models"]
    assert (model["name"], model["context_length"], model["size_vram"]) == ("toy:latest", 512, 0)
    left = datetime.fromisoformat(model["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=200) < left <= timedelta(seconds=300)
    tags = {each["name"]: each["digest"] for each in site.get(API + "tags").json()["models"]}
    assert tags["toy:latest"] == model["digest"]


@pytest.mark.parametrize("is_busy", [False, True], ids=["for ever", "in use"])
def test_ps_of_what_does_not_expire(site: Site, is_busy: bool) -> None:
    engine = site.scripted(["x"], until_cancelled=is_busy)
    with site.raw_post(API + "generate", {"model": TOY, "prompt": "x", "keep_alive": -1}):
        wait_until(lambda: engine.tickets)
        if not is_busy:
            wait_until(lambda: site.in_flight == 0)
        (model,) = site.get(API + "ps").json()["models"]
        left = datetime.fromisoformat(model["expires_at"]) - datetime.now(UTC)
        assert left > timedelta(days=9000) if not is_busy else left > timedelta(seconds=200)


@pytest.mark.parametrize("name", ["toy", "toy:latest", "TOY", "gpt-4", "toy.gguf"])
@pytest.mark.parametrize("key", ["model", "name"])
def test_show(site: Site, name: str, key: str) -> None:
    body = site.post(API + "show", {key: name}).json()
    assert body["model_info"]["general.architecture"] == "llama"
    assert body["details"]["quantization_level"]
    assert body["capabilities"] == ["completion", "embedding", "tools"]
    assert body["modelfile"].startswith("FROM toy:latest\n")
    assert str(site.folder) not in json.dumps(body)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"general.architecture": "bert", "bert.pooling_type": 1}, ["embedding"]),
        ({"general.architecture": "llama"}, ["completion", "embedding"]),
        (
            {"tokenizer.chat_template": "{% if enable_thinking %}", "tokenizer.ggml.fim_pre_token_id": 5},
            ["completion", "embedding", "tools", "insert", "thinking"],
        ),
    ],
)
def test_capabilities(values: dict[str, Any], expected: list[str]) -> None:
    assert capabilities(values) == expected


@pytest.mark.parametrize(("body", "status"), [({}, 400), ({"model": "nothing"}, 404), (b"", 400), ({"model": 5}, 400)])
def test_show_of_nothing(site: Site, body: Any, status: int) -> None:
    assert _failure(site.post(API + "show", body))[0] == status


@pytest.mark.parametrize("messages", [5, [1], [None]], ids=repr)
@pytest.mark.parametrize("path", ["show", "generate", "embed", "embeddings"])
def test_messages_where_none_belong_are_ignored_and_logged(site: Site, path: str, messages: Any) -> None:
    body = {"model": TOY, "messages": messages, "prompt": "hi", "input": "hi", "stream": False}
    assert site.post(API + path, body).status == 200
    (line,) = [line for line in site.log.lines if "mean nothing here" in line]
    assert "messages" in line


@pytest.mark.parametrize("name", [TOY, f"{TOY}:latest", OTHER, "default", "default:latest", "gpt-4:latest"])
def test_name_with_and_without_its_tag(site: Site, name: str) -> None:
    body = site.post(API + "generate", {"model": name}).json()
    assert (body["model"], body["done_reason"]) == (name, "load")


@pytest.mark.parametrize("name", [f"{TOY}:7b", "other"])
def test_name_with_another_tag_is_another(site: Site, name: str) -> None:
    status, message = _failure(site.post(API + "generate", {"model": name}))
    assert (status, message.partition(":")[0][:6]) == (404, "model ")
    assert f"model '{name}' not found" in message


# ---- the rest


def test_version_needs_no_key(site: Site) -> None:
    answer = site.get(API + "version", bare=True)
    assert [int(part) for part in answer.json()["version"].split(".")] > [0, 6, 4]  # what Copilot wants


@pytest.mark.parametrize("path", ["nbllm/ollama", "nbllm/ollama/"])
def test_root(site: Site, path: str) -> None:
    answer = site.get(path, bare=True)
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    head = site.request("HEAD", path, bare=True)
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("path", ["api", "api/", "api/nothing", "api/generate/x", "v1/models", "x"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
def test_unknown_path(site: Site, path: str, method: str) -> None:
    answer = site.request(method, f"nbllm/ollama/{path}", {} if method == "POST" else None)
    assert answer.status == 404
    if method != "HEAD":
        assert "unknown path" in _failure(answer)[1]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "generate", "POST"), ("DELETE", "chat", "POST"), ("POST", "tags", "GET"), ("PUT", "embed", "POST")],
)
def test_wrong_method(site: Site, method: str, path: str, allowed: str) -> None:
    answer = site.request(method, API + path, {} if method in ("POST", "PUT") else None)
    assert _failure(answer)[0] == 405
    assert answer.headers["Allow"] == allowed


def test_jupyters_own_api_is_left_alone(site: Site) -> None:
    assert "version" in site.get("api").json()
    assert "started" in site.get("api/status").json()
    assert site.get("api/tags").status == 404


# ---- keys


def test_no_key_is_401_with_a_challenge(site: Site) -> None:
    answer = site.get(API + "tags", bare=True)
    assert _failure(answer)[0] == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer, Basic realm="nbllm", charset="UTF-8"'


@pytest.mark.parametrize(
    "header",
    [
        lambda secret: {"Authorization": f"Bearer {secret}"},
        lambda secret: {"Authorization": "Basic " + base64.b64encode(f"anybody:{secret}".encode()).decode()},
        lambda secret: {"X-Api-Key": secret},
    ],
    ids=["Bearer", "Basic", "X-Api-Key"],
)
def test_key(site: Site, header: Any) -> None:
    secret = site.keys.create("laptop").secret
    assert site.get(API + "tags", headers=header(secret), bare=True).status == 200
    assert site.get(API + "tags", headers=header("sk-wrong"), bare=True).status == 401


@pytest.mark.parametrize(
    ("scope", "path", "body"),
    [
        ("chat", "generate", {"model": TOY}),
        ("chat", "chat", {"model": TOY}),
        ("embeddings", "embed", {"model": TOY, "input": "a"}),
        ("embeddings", "embeddings", {"model": TOY, "prompt": "a"}),
        ("models", "show", {"model": TOY}),
    ],
)
def test_scopes(site: Site, scope: Any, path: str, body: dict[str, Any]) -> None:
    right = {"Authorization": f"Bearer {site.keys.create('right', scopes=[scope]).secret}"}
    wrong = {"Authorization": f"Bearer {site.keys.create('wrong', scopes=['manage']).secret}"}
    assert site.post(API + path, body, headers=right, bare=True).status == 200
    assert _failure(site.post(API + path, body, headers=wrong, bare=True))[0] == 403


def test_key_for_some_models(site: Site) -> None:
    headers = {"Authorization": f"Bearer {site.keys.create('narrow', models=[TOY]).secret}"}
    site.post("v1/completions", {**completion(), "model": OTHER})
    names = [model["name"] for model in site.get(API + "tags", headers=headers, bare=True).json()["models"]]
    assert set(names) == {"toy:latest", "gpt-4:latest"}
    assert site.get(API + "ps", headers=headers, bare=True).json() == {"models": []}
    assert site.post(API + "show", {"model": "toy:latest"}, headers=headers, bare=True).status == 200
    assert site.post(API + "show", {"model": OTHER}, headers=headers, bare=True).status == 403


# ---- names that mean nothing


@pytest.fixture
def lending_site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, model_aliases={"*": TOY}) as site:
        yield site


def test_owner_may_say_what_any_name_means(lending_site: Site) -> None:
    body = lending_site.post(API + "generate", {"model": "mistral:latest"}).json()
    assert (body["model"], body["done_reason"]) == ("mistral:latest", "load")
