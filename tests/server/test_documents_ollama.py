"""Every request of the user's document about Ollama's API, sent as it is printed there, to the command.

The names of its models are aliases, the answers are held short, and the hub is an imitation on loopback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nbllm.server.keys import KeyStore
from tests.server.serving import Answer, Client, real_server
from tests.store.gguf_writer import tiny_model, write
from tests.store.hub import serving

pytestmark = pytest.mark.model
_CURL = {"Content-Type": "application/x-www-form-urlencoded"}
"""What curl sends with -d where nothing is said of the type."""
_CONFIG = 'context_length = 512\n[aliases]\nllama2 = "smollm2"\nmistral = "smollm2"\n'
_OLD = "llama2:old-version"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("documents")
    (folder / "config.toml").write_text(_CONFIG)
    write(folder / "models" / f"{_OLD}.gguf", tiny_model())
    with serving() as hub:
        hub.files["bartowski/gemma-1.1-7b-it-GGUF"] = {"gemma-1.1-7b-it-Q4_K_M.gguf": tiny_model()}
        named = {"NBLLM_CONFIG": str(folder / "config.toml"), "NBLLM_REGISTRY": "none", "NO_PROXY": "127.0.0.1"}
        named |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        with real_server(folder, environment=named) as client:
            client.folder = folder  # type: ignore[attr-defined]
            yield client


@pytest.fixture(scope="module")
def manage(server: Client) -> dict[str, str]:
    """The header of a key for what changes models."""
    folder: Path = server.folder  # type: ignore[attr-defined]
    secret = KeyStore(folder / "keys.json").create("manager", scopes=["manage"]).secret
    return {**_CURL, "Authorization": f"Bearer {secret}"}


def _post(server: Client, path: str, body: dict[str, Any], headers: dict[str, str] = _CURL) -> Answer:
    return server.post(path, body, headers=headers, timeout_s=60)


def _lines(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200
    return [json.loads(line) for line in answer.body.splitlines()]


def test_tags(server: Client) -> None:
    models = server.get("api/tags").json()["models"]
    assert "llama2:latest" in [model["name"] for model in models]
    for model in models:
        assert datetime.fromisoformat(model["modified_at"]).tzinfo is not None
        assert isinstance(model["size"], int)


def test_generate(server: Client) -> None:
    asked = {"model": "llama2", "prompt": "为什么天空是蓝色的", "stream": False, "temperature": 0.7, "max_tokens": 10}
    body = _post(server, "api/generate", asked).json()
    assert body["response"]
    assert body["done"] is True
    assert body["created_at"].endswith("Z")
    assert body["eval_count"] <= 10


@pytest.mark.parametrize("temperature", [0, 1])
def test_generate_takes_temperatures_from_0_to_1(server: Client, temperature: int) -> None:
    asked = {"model": "llama2", "prompt": "Hi", "stream": False, "temperature": temperature, "max_tokens": 2}
    assert _post(server, "api/generate", asked).status == 200


def test_chat(server: Client) -> None:
    turns = [("user", "你好"), ("assistant", "你好"), ("user", "写一首关于春天的诗")]
    messages = [{"role": role, "content": content} for role, content in turns]
    asked = {"model": "llama2", "messages": messages, "stream": True, "max_tokens": 10}
    *lines, last = _lines(_post(server, "api/chat", asked))
    assert lines
    for line in lines:
        assert (line["message"]["role"], line["done"]) == ("assistant", False)
    assert "".join(line["message"]["content"] for line in lines)
    assert last["done"] is True


def test_embeddings(server: Client) -> None:
    vector = _post(server, "api/embeddings", {"model": "llama2", "prompt": "人工智能"}).json()["embedding"]
    assert len(vector) > 100
    assert any(number < 0 for number in vector)
    assert all(isinstance(number, float) for number in vector)


def test_pull(server: Client, manage: dict[str, str]) -> None:
    first, *_, last = _lines(_post(server, "api/pull", {"name": "gemma:7b"}, manage))
    assert (first, last) == ({"status": "pulling manifest"}, {"status": "success"})
    assert _post(server, "api/show", {"name": "gemma:7b"}).json()["details"]["format"] == "gguf"


def test_delete(server: Client, manage: dict[str, str]) -> None:
    deleted = server.request("DELETE", "api/delete", {"name": _OLD}, manage)
    assert deleted.status == 200
    assert _OLD not in [model["name"] for model in server.get("api/tags").json()["models"]]
    assert server.request("DELETE", "api/delete", {"name": _OLD}, manage).status == 404


@pytest.mark.parametrize(("method", "path"), [("POST", "api/pull"), ("DELETE", "api/delete")])
def test_managing_needs_a_key(server: Client, method: str, path: str) -> None:
    answer = server.request(method, path, {"name": "gemma:7b"}, _CURL)
    assert answer.status == 401
    assert "manage" in answer.json()["error"]


def test_custom_model_from_a_modelfile_is_called_by_the_api(server: Client, manage: dict[str, str]) -> None:
    text = "FROM llama2\nPARAMETER num_predict 5\nSYSTEM You are Mario.\n"
    assert _lines(_post(server, "api/create", {"name": "mario", "modelfile": text}, manage))[-1]["status"] == "success"
    body = _post(server, "api/generate", {"model": "mario", "prompt": "Who are you?", "stream": False}).json()
    assert body["response"]
    assert body["eval_count"] <= 5


def test_python_example(server: Client) -> None:
    """`requests.post(..., json={...}).json()["response"]`."""
    asked = {"model": "mistral", "prompt": "Hi", "stream": False, "max_tokens": 4}
    assert _post(server, "api/generate", asked, {"Content-Type": "application/json"}).json()["response"]


@pytest.mark.parametrize(
    ("body", "status"),
    [({"model": "llama2", "prompt": "x", "temperature": "hot"}, 400), ({"model": "nope", "prompt": "x"}, 404)],
)
def test_status_codes(server: Client, body: dict[str, Any], status: int) -> None:
    answer = _post(server, "api/generate", body)
    assert (answer.status, set(answer.json())) == (status, {"error"})
