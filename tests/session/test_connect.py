"""`nbllm.connect`: a model on another server, used like any other."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

import nbllm
from nbllm.errors import EndpointError, EngineError, ModelNotFoundError, ParameterError
from tests.runner.plays import Playhouse, delta, playhouse


@pytest.fixture
def house() -> Iterator[Playhouse]:
    with playhouse() as running:
        yield running


def test_connect_with_a_model_sends_nothing(house: Playhouse) -> None:
    with nbllm.connect(house.url, model="m", api_key="sk-secret") as model:
        assert "sk-secret" not in repr(model.engine)
    assert not house.asked


def test_connect_chats(house: Playhouse) -> None:
    house.lists({"id": "m", "owned_by": "vllm", "max_model_len": 4096})
    house.answers("Hel", "lo")
    with nbllm.connect(house.url, model="m") as model:
        response = model.chat("hi", temperature=0)

        assert (str(response), response.model, response.usage.completion_tokens) == ("Hello", "m", 2)
        assert model.info.context_length == 4096
        assert "".join(chunk.text for chunk in model.stream("hi")) == "Hello"
    assert [body["messages"] for body in house.bodies] == [[{"role": "user", "content": "hi"}]] * 2


def test_connect_parses_json_answers(house: Playhouse) -> None:
    house.answers('{"a": ', "1}")
    with nbllm.connect(house.url, model="m") as model:
        assert model.chat("hi", response_format={"type": "object"}).parsed == {"a": 1}


def test_connect_chat_many_keeps_the_order(house: Playhouse) -> None:
    house.chat(
        lambda asked, reply: reply.stream(delta({"content": asked.body["messages"][0]["content"]}), delta({}, "stop"))
    )
    prompts = [f"p{number}" for number in range(20)]
    with nbllm.connect(house.url, model="m", max_concurrency=4) as model:
        assert [response.text for response in model.chat_many(prompts)] == prompts


def test_connect_without_a_model_takes_the_only_one(house: Playhouse) -> None:
    house.lists({"id": "only"})
    house.answers("x")
    with nbllm.connect(house.url) as model:
        model.chat("hi")
    assert house.bodies[0]["model"] == "only"


@pytest.mark.parametrize(("names", "shown"), [(["a", "b"], r"has 2 \(a, b\)"), ([], r"has 0 \(none\)")])
def test_connect_without_a_model_lists_what_there_is(house: Playhouse, names: list[str], shown: str) -> None:
    house.lists(*({"id": name} for name in names))

    with pytest.raises(ModelNotFoundError, match=shown):
        nbllm.connect(house.url)


def test_connect_to_something_else_says_so(house: Playhouse) -> None:
    house.plays["GET /v1/models"] = lambda asked, reply: reply.json(["a page"])

    with pytest.raises(EngineError, match="is no list of models"):
        nbllm.connect(house.url)


def test_connect_to_nobody_is_one_line_that_says_what_to_do() -> None:
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(EndpointError) as refusal:
            nbllm.connect(url, max_retries=0)
    (line,) = refusal.value._render_traceback_()
    assert line == f"EndpointError: nothing answers at {url}: start the server there, or check host and port"


@pytest.mark.parametrize("prefix", ["", "/v1"], ids=["bare", "v1"])
def test_connect_finds_where_the_api_is(house: Playhouse, prefix: str) -> None:
    house.plays[f"GET {prefix}/models"] = lambda asked, reply: reply.json({"data": [{"id": "m"}]})
    house.plays[f"POST {prefix}/chat/completions"] = lambda asked, reply: reply.stream(
        delta({"content": "x"}), delta({}, "stop")
    )
    with nbllm.connect(house.url.removesuffix("/v1"), model="m") as model:
        assert not house.asked
        assert model.chat("hi").text == "x"


@pytest.mark.parametrize("url", ["ftp://a", "localhost:8000", "", "http://name:pass@a/v1"])
def test_connect_refuses_what_is_no_address(url: str) -> None:
    with pytest.raises(ParameterError, match=r"^base_url: ") as refusal:
        nbllm.connect(url, model="m")
    assert "pass@" not in str(refusal.value)


def test_connect_gives_openais_key_to_nobody_else(house: Playhouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    house.answers("x")
    with nbllm.connect(house.url, model="m") as model:
        model.chat("hi")
    assert all("Authorization" not in asked.headers for asked in house.asked)
