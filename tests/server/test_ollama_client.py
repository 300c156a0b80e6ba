"""The official `ollama` package against the server, and the requests of the user's document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import ollama
import pytest

from nbllm.core import Chunk, ToolCallDelta
from nbllm.testing import toy_engine
from tests.server.serving import TOY, Client, Site, real_server

_HI = [{"role": "user", "content": "Hi"}]
_FEW: Any = {"temperature": 0, "num_predict": 8}
_SCHEMA: Any = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b


@pytest.fixture
def client(site: Site) -> Iterator[ollama.Client]:
    client = ollama.Client(host=site.url + "nbllm/ollama", headers={"Authorization": f"Bearer {site.token}"})
    with closing(client._client):
        yield client


def test_list_show_and_ps(client: ollama.Client) -> None:
    listed = {model.model: model for model in client.list().models}
    assert listed["toy:latest"].details is not None
    assert listed["toy:latest"].modified_at is not None
    shown = client.show(TOY)
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert list(client.ps().models) == []
    client.generate(TOY)
    (held,) = client.ps().models
    assert (held.model, held.context_length) == ("toy:latest", 512)
    assert client.generate(TOY, keep_alive=0).done_reason == "unload"
    assert list(client.ps().models) == []


def test_generate(client: ollama.Client) -> None:
    whole = client.generate(TOY, "Hi", options=_FEW)
    assert whole.response
    assert (whole.done, whole.done_reason, whole.eval_count) == (True, "length", 8)
    parts = list(client.generate(TOY, "Hi", options=_FEW, stream=True))
    assert "".join(part.response or "" for part in parts) == whole.response
    assert parts[-1].context == whole.context
    assert client.generate(TOY, "More", context=whole.context, options=_FEW).response


def test_generate_with_likelihoods(client: ollama.Client) -> None:
    answer = client.generate(TOY, "Hi", options=_FEW, logprobs=True, top_logprobs=2)
    assert answer.logprobs is not None
    assert len(answer.logprobs) == 8
    assert len(answer.logprobs[0].top_logprobs or ()) == 2


def test_chat(client: ollama.Client) -> None:
    whole = client.chat(TOY, _HI, options=ollama.Options(temperature=0, num_predict=8))
    parts = list(client.chat(TOY, _HI, options=_FEW, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert parts[-1].done


def test_chat_in_a_format(client: ollama.Client) -> None:
    options: Any = {"temperature": 0, "num_predict": 64}
    answer = client.chat(TOY, _HI, format=_SCHEMA, options=options)
    assert isinstance(json.loads(answer.message.content or "")["on"], bool)
    text = client.generate(TOY, "Hi", format="json", options=options).response
    assert (text or "").lstrip().startswith("{")


def test_tools_from_functions_and_back(site: Site, client: ollama.Client) -> None:
    engine = site.scripted([Chunk(tool_calls=(ToolCallDelta(0, "c", "add", '{"a": 1, "b": 2}'),))], "3")
    answer = client.chat(TOY, _HI, tools=[add])
    (call,) = answer.message.tool_calls or ()
    assert add(**call.function.arguments) == 3
    result = {"role": "tool", "content": "3", "tool_name": "add"}
    assert client.chat(TOY, [*_HI, answer.message, result], tools=[add]).message.content == "3"
    request: Any = engine.requests[-1]
    assert request.tools[0].parameters["required"] == ["a", "b"]
    assert [turn.role for turn in request.messages] == ["user", "assistant", "tool"]


def test_vectors(client: ollama.Client) -> None:
    many = client.embed(TOY, ["one", "two"], dimensions=4)
    assert np.allclose(np.linalg.norm(many.embeddings, axis=1), 1, atol=1e-5)
    assert len(client.embed(TOY, "one").embeddings) == 1
    assert len(client.embeddings(TOY, "one").embedding) == 16


@pytest.mark.parametrize(
    ("status", "more"), [(404, {"model": "nothing"}), (400, {"options": {"top_p": 7}}), (400, {"think": True})]
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_are_the_clients(client: ollama.Client, status: int, more: Any, stream: bool) -> None:
    with pytest.raises(ollama.ResponseError) as failure:
        list(client.chat(**{"model": TOY, "messages": _HI, "stream": stream, **more}))
    assert failure.value.status_code == status
    assert failure.value.error


def test_failure_of_the_key(site: Site) -> None:
    client = ollama.Client(host=site.url + "nbllm/ollama", headers={"Authorization": "Bearer sk-wrong"})
    with closing(client._client), pytest.raises(ollama.ResponseError) as failure:
        client.list()
    assert failure.value.status_code == 401


def test_key_as_anybodys_password(site: Site) -> None:
    secret = site.keys.create("laptop").secret
    client = ollama.Client(host=site.url + "nbllm/ollama", auth=("anybody", secret))
    with closing(client._client):
        assert client.list().models


def test_the_asynchronous_client(site: Site) -> None:
    site.cast.engines.append(toy_engine())

    async def asked() -> None:
        headers = {"Authorization": f"Bearer {site.token}"}
        client = ollama.AsyncClient(host=site.url + "nbllm/ollama", headers=headers)
        assert (await client.list()).models
        assert (await client.show(TOY)).details
        whole = await client.generate(TOY, "Hi", options=_FEW)
        parts = [part async for part in await client.generate(TOY, "Hi", options=_FEW, stream=True)]
        assert "".join(part.response or "" for part in parts) == whole.response
        chat = await client.chat(TOY, _HI, options=_FEW)
        parts_of_chat = [part async for part in await client.chat(TOY, _HI, options=_FEW, stream=True)]
        assert "".join(part.message.content or "" for part in parts_of_chat) == chat.message.content
        assert len((await client.embed(TOY, ["a", "b"])).embeddings) == 2
        assert (await client.embeddings(TOY, "a")).embedding
        assert (await client.ps()).models
        await client._client.aclose()

    asyncio.run(asked())


# ---- the real model, the command, and the document


_ALIASES = '[aliases]\nllama2 = "smollm2"\nmistral = "smollm2"\n'


@pytest.mark.model
def test_the_documents_requests_and_the_client(tmp_path: Path, smollm2_path: Path) -> None:
    """As printed, without a key and without a content type; only the length of answers is held short."""
    (tmp_path / "config.toml").write_text("context_length = 512\n" + _ALIASES)
    with real_server(tmp_path, environment={"NBLLM_CONFIG": str(tmp_path / "config.toml")}) as server:
        _documents_requests(server)
        client = ollama.Client(host=server.url)
        with closing(client._client):
            _whole_surface(client)


def _whole_surface(client: ollama.Client) -> None:
    few: Any = {"temperature": 0, "num_predict": 12}
    assert "smollm2:latest" in [model.model for model in client.list().models]
    assert (client.show("llama2").modelinfo or {})["general.architecture"] == "llama"
    light = client.chat(
        "smollm2", [{"role": "user", "content": "Is it on?"}], format=_SCHEMA, options={"num_predict": 60}
    )
    assert isinstance(json.loads(light.message.content or "")["on"], bool)
    first = client.generate("mistral", "My name is Ada. Greet me.", options=few)
    then = client.generate("mistral", "What is my name?", context=first.context, options=few)
    assert list(then.context or ())[: len(first.context or ())] == list(first.context or ())
    assert (then.prompt_eval_count or 0) > len(first.context or ()) > 0
    assert [model.model for model in client.ps().models] == ["smollm2:latest"]
    assert client.generate("mistral", keep_alive=0).done_reason == "unload"
    assert list(client.ps().models) == []
    with pytest.raises(ollama.ResponseError) as failure:  # and not the default model, which GPT4All's clients get
        client.generate("gemma:7b", "Hi")
    assert failure.value.status_code == 404


def _documents_requests(server: Client) -> None:
    curl = {"Content-Type": "application/x-www-form-urlencoded"}
    for model in server.get("api/tags").json()["models"]:
        assert {"name", "modified_at", "size"} <= set(model)
    asked = {"model": "llama2", "prompt": "为什么天空是蓝色的", "temperature": 0.7, "max_tokens": 10, "stream": False}
    answer = server.post("api/generate", asked, headers=curl, timeout_s=60)
    assert answer.status == 200
    assert answer.json()["response"]
    assert (answer.json()["done"], answer.json()["eval_count"] <= 10) == (True, True)
    assert answer.json()["created_at"].endswith("Z")
    chat = {
        "model": "llama2",
        "messages": [
            {"role": "user", "content": "你好"},
            {"role": "assistant", "content": "你好"},
            {"role": "user", "content": "写一首诗"},
        ],
        "stream": True,
        "max_tokens": 10,
    }
    lines = [json.loads(line) for line in server.post("api/chat", chat, headers=curl, timeout_s=60).body.splitlines()]
    assert lines[0]["message"]["role"] == "assistant"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    vector = server.post("api/embeddings", {"model": "llama2", "prompt": "天空"}, headers=curl).json()["embedding"]
    assert len(vector) > 100
    assert all(isinstance(number, float) for number in vector)
    stranger = server.post("api/generate", {"model": "nope", "prompt": "x"}, headers=curl)
    assert (stranger.status, set(stranger.json())) == (404, {"error"})
