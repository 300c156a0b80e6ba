"""The official `openai` package against the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from nbllm.testing import toy_engine
from tests.server.serving import TOY, Site, real_server, wait_until

_HI: Any = [{"role": "user", "content": "Hi"}]
_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_SHAPE: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": _SCHEMA, "strict": True}}
_TOOL: Any = {"type": "function", "function": {"name": "add_person", "description": "Adds", "parameters": _SCHEMA}}


@pytest.fixture
def client(site: Site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=site.url + "v1", api_key=site.token, max_retries=0, timeout=20) as client:
        yield client


def _chat(client: openai.OpenAI, model: str = TOY, **more: Any) -> Any:
    return client.chat.completions.create(
        **{"model": model, "messages": _HI, "max_completion_tokens": 8, "temperature": 0, **more}
    )


def test_chat(client: openai.OpenAI) -> None:
    answer = _chat(client)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content
    assert answer.choices[0].message.refusal is None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer.system_fingerprint.startswith("b")
    assert answer._request_id


def test_stream(client: openai.OpenAI) -> None:
    whole = _chat(client).choices[0].message.content
    chunks = list(_chat(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "length"


def test_stream_with_usage(client: openai.OpenAI) -> None:
    *chunks, last = _chat(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks)


def test_stream_that_is_left_early_ends_the_request(site: Site, client: openai.OpenAI) -> None:
    engine = site.scripted(["a", "b"], until_cancelled=True)
    with _chat(client, stream=True) as stream:
        next(iter(stream))
    wait_until(lambda: engine.tickets[0].is_done)


def test_the_streaming_helper_adds_up_to_the_answer(site: Site, client: openai.OpenAI) -> None:
    site.scripted(["Hel", "lo"])
    with client.chat.completions.stream(model=TOY, messages=_HI, max_completion_tokens=8, temperature=0) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Hello"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add_person"}}])
def test_a_forced_tool_is_called_as_its_schema_says(site: Site, client: openai.OpenAI, choice: Any) -> None:
    site.cast.engines.append(toy_engine(context_length=4096))
    answer = _chat(client, tools=[_TOOL], tool_choice=choice, max_completion_tokens=300, parallel_tool_calls=False)
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "add_person"
    assert set(json.loads(call.function.arguments)) == {"name", "age"}


def test_a_forced_tool_in_a_stream(site: Site, client: openai.OpenAI) -> None:
    site.cast.engines.append(toy_engine(context_length=4096))
    options: Any = {"tools": [_TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    options |= {"max_completion_tokens": 300, "temperature": 0}
    with client.chat.completions.stream(model=TOY, messages=_HI, **options) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls
    assert set(json.loads(calls[0].function.arguments)) == {"name", "age"}


def test_json_of_a_schema(client: openai.OpenAI) -> None:
    answer = _chat(client, response_format=_SHAPE, max_completion_tokens=300)
    assert set(json.loads(answer.choices[0].message.content)) == {"name", "age"}


def test_a_pydantic_class(client: openai.OpenAI) -> None:
    from pydantic import BaseModel

    class Flag(BaseModel):
        is_set: bool

    answer = client.chat.completions.parse(
        model=TOY, messages=_HI, response_format=Flag, max_completion_tokens=64, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Flag)


def test_embeddings_as_the_client_asks_for_them(client: openai.OpenAI) -> None:
    """In base64, unless told otherwise."""
    coded = client.embeddings.create(model=TOY, input=["one", "two"])
    plain = client.embeddings.create(model=TOY, input=["one", "two"], encoding_format="float")
    for one, other in zip(coded.data, plain.data, strict=True):
        assert np.allclose(one.embedding, other.embedding, atol=1e-6)
    assert len(client.embeddings.create(model=TOY, input="x", dimensions=4).data[0].embedding) == 4


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=TOY, prompt=["a", "b"], max_tokens=4, temperature=0, logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].logprobs is not None
    stream = client.completions.create(model=TOY, prompt="a", max_tokens=4, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    assert TOY in [model.id for model in client.models.list()]
    assert client.models.retrieve(TOY).owned_by == "nbllm"
    assert client.models.retrieve("teams/other:7b").id == "teams/other:7b"


def test_logprobs(client: openai.OpenAI) -> None:
    content = _chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(content) == 8
    assert len(content[0].top_logprobs) == 2


@pytest.mark.parametrize(
    ("kind", "ask"),
    [
        (openai.BadRequestError, lambda client: _chat(client, temperature="hot")),
        (openai.NotFoundError, lambda client: _chat(client, model="nothing")),
        (openai.NotFoundError, lambda client: client.models.retrieve("nothing")),
        (openai.NotFoundError, lambda client: client.responses.create(model=TOY, input="x")),
        (openai.AuthenticationError, lambda client: client.with_options(api_key="sk-wrong").models.list()),
    ],
    ids=["range", "model", "retrieve", "path", "key"],
)
def test_errors_are_the_clients_classes(
    client: openai.OpenAI, kind: type[openai.APIStatusError], ask: Callable[[openai.OpenAI], Any]
) -> None:
    with pytest.raises(kind) as failure:
        ask(client)
    assert isinstance(failure.value.body, dict)
    assert failure.value.body["message"]


def test_codes_and_params_reach_the_client(site: Site, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as failure:
        _chat(client, messages=[{"role": "user", "content": "x" * 3000}])
    assert failure.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as failure:
        _chat(client, temperature=-1)
    assert failure.value.param == "temperature"
    narrow = client.with_options(api_key=site.keys.create("narrow", scopes=["models"]).secret)
    with pytest.raises(openai.PermissionDeniedError):
        _chat(narrow)


def test_an_error_in_the_middle_of_a_stream_is_raised(site: Site, client: openai.OpenAI) -> None:
    site.scripted(["some"], until_cancelled=True)
    with _chat(client, stream=True) as stream:
        next(stream)
        site.cast.runners[0].die()
        with pytest.raises(openai.APIError):
            list(stream)


# ---- the real model, and the command


@pytest.mark.model
def test_the_command_serves_the_bundled_model(tmp_path: Path, smollm2_path: Path) -> None:
    with real_server(tmp_path) as server:
        client = openai.OpenAI(base_url=server.url + "v1", api_key="not-needed", max_retries=0, timeout=60)
        with client:
            answer = _chat(client, "default", messages=[{"role": "user", "content": "Say hello."}], seed=1)
            assert answer.model == "smollm2"
            assert answer.choices[0].message.content
            chunks = list(_chat(client, "default", stream=True))
            assert chunks[-1].choices[0].finish_reason in ("stop", "length")
            person = _chat(client, "smollm2", response_format=_SHAPE, max_completion_tokens=60)
            assert set(json.loads(person.choices[0].message.content)) == {"name", "age"}
            call = _chat(client, "smollm2", tools=[_TOOL], tool_choice="required", max_completion_tokens=100)
            assert call.choices[0].message.tool_calls[0].function.name == "add_person"
            vectors = client.embeddings.create(model="smollm2", input=["a cat", "a dog"]).data
            assert np.linalg.norm(vectors[0].embedding) == pytest.approx(1, abs=1e-3)
            assert _chat(client, "Phi-3 Mini Instruct").model == "smollm2"  # as GPT4All answers
        _is_a_model_server_only(server)


def _is_a_model_server_only(server: Any) -> None:
    for path in ("api/kernels", "api/contents", "api/terminals", "lab", "tree", "login"):
        assert server.get(path).status in (401, 404), path
    assert b"v1/models" in server.get("").body
    assert "Set-Cookie" not in server.get("").headers
