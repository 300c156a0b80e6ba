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
from tests.server.serving import TOY, Site, real_server
from tests.store.gguf_writer import tiny_model, write
from tests.store.hub import serving, use

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


def test_the_asynchronous_client(site: Site, tmp_path: Path) -> None:
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
        digest = await client.create_blob(write(tmp_path / "model.gguf", tiny_model()))
        assert (await client.create("mine", files={"model.gguf": digest})).status == "success"
        created = [part.status async for part in await client.create("mario", stream=True, **_MARIO)]
        assert created[-1] == "success"
        assert (await client.copy("mario", "luigi")).status == "success"
        assert (await client.pull("gpt-4")).status == "success"
        pulled = [part.status async for part in await client.pull("gpt-4", stream=True)]
        assert pulled[-1] == "success"
        for name in ("mine", "mario", "luigi"):
            assert (await client.delete(name)).status == "success"
        await client._client.aclose()

    asyncio.run(asked())


# ---- the models themselves


_MARIO: Any = {"from_": TOY, "system": "Be Mario.", "parameters": {"temperature": 0.5}, "license": "MIT"}


def test_create_copy_and_delete(client: ollama.Client) -> None:
    statuses = [part.status for part in client.create("mario", stream=True, **_MARIO)]
    assert statuses[-1] == "success"
    assert client.create("mario", messages=[{"role": "user", "content": "Who?"}], **_MARIO).status == "success"
    shown = client.show("mario")
    assert shown.license == "MIT"
    assert "temperature" in (shown.parameters or "")
    assert client.copy("mario", "luigi").status == "success"
    assert {"mario:latest", "luigi:latest"} <= {model.model for model in client.list().models}
    assert client.chat("luigi", _HI, options=_FEW).message.content
    assert [client.delete(name).status for name in ("mario", "luigi")] == ["success"] * 2
    with pytest.raises(ollama.ResponseError) as failure:
        client.delete("mario")
    assert failure.value.status_code == 404


def test_create_from_a_blob(client: ollama.Client, tmp_path: Path) -> None:
    digest = client.create_blob(write(tmp_path / "model.gguf", tiny_model()))
    assert client.create("mine", files={"model.gguf": digest}).status == "success"
    assert client.generate("mine", "Hi", options=_FEW).response
    client.delete("mine")


def test_pull(client: ollama.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as hub:
        use(hub, monkeypatch)
        hub.files["org/repo"] = {"m.Q4_0.gguf": tiny_model()}
        parts = list(client.pull("hf:org/repo", stream=True))
        assert (parts[0].status, parts[-1].status) == ("pulling manifest", "success")
        assert max(part.completed or 0 for part in parts) == len(tiny_model())
        assert client.pull("hf:org/repo").status == "success"
        for stream in (False, True):
            with pytest.raises(ollama.ResponseError):
                list(client.pull("hf:org/other", stream=stream))


# ---- the real model, and the command


_ALIASES = '[aliases]\nllama2 = "smollm2"\nmistral = "smollm2"\n'


@pytest.mark.model
def test_the_whole_surface_against_the_command(tmp_path: Path, smollm2_path: Path) -> None:
    (tmp_path / "config.toml").write_text("context_length = 512\n" + _ALIASES)
    named = {"NBLLM_CONFIG": str(tmp_path / "config.toml"), "NBLLM_REGISTRY": "none"}
    with real_server(tmp_path, "--no-keys", environment=named) as server:
        client = ollama.Client(host=server.url)
        with closing(client._client):
            _whole_surface(client)
            _managed(client, smollm2_path)


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


def _managed(client: ollama.Client, weights: Path) -> None:
    """Without a key, as `--no-keys` was typed."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    few: Any = {"temperature": 0, "num_predict": 8}
    made = client.create("mario", from_="smollm2", system="You are Mario.", template=template, parameters=few)
    assert made.status == "success"
    answer = client.chat("mario", [{"role": "user", "content": "Who are you?"}])
    assert 0 < (answer.eval_count or 0) <= 8
    plain = client.chat("smollm2", [{"role": "user", "content": "Who are you?"}], options=few)
    assert answer.prompt_eval_count != plain.prompt_eval_count
    client.copy("mario", "luigi")
    assert client.chat("luigi", [{"role": "user", "content": "Who are you?"}]).message == answer.message
    running = client.ps().models  # one engine for all of them
    assert [model.model for model in running] == ["mario:latest", "smollm2:latest", "luigi:latest"]
    assert len({model.expires_at for model in running}) == 1
    with pytest.raises(ollama.ResponseError) as failure:
        client.delete("smollm2")
    assert failure.value.status_code == 403
    assert weights.exists()
    with pytest.raises(ollama.ResponseError) as failure:
        client.pull("nobody/has:this")
    assert failure.value.status_code in (404, 503)
    for name in ("mario", "luigi"):
        client.delete(name)
