"""The adapters that a request names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nbllm.errors import ParameterError
from nbllm.wire.openai.chat import parse_chat
from nbllm.wire.openai.completions import parse_completion
from nbllm.wire.openai.embeddings import parse_embeddings
from nbllm.wire.openai.lora import Switch

_CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def _lora(lora: Any) -> tuple[Switch, ...] | None:
    return parse_chat(json.dumps({**_CHAT, "lora": lora}).encode()).lora


def test_adapters_of_each_kind_of_request() -> None:
    given = {"lora": [{"id": 0, "scale": 0.5}, {"id": 2.0}]}
    bodies = ({**_CHAT, **given}, {"model": "m", "prompt": "a", **given}, {"model": "m", "input": "a", **given})
    chat, completion, embedding = (json.dumps(body).encode() for body in bodies)
    for call in (parse_chat(chat), parse_completion(completion), parse_embeddings(embedding)):
        assert call.lora == (Switch(0, 0.5), Switch(2, None))


@pytest.mark.parametrize(("given", "meant"), [(None, None), ([], ())])
def test_nothing_said_is_not_none_of_them(given: Any, meant: Any) -> None:
    assert _lora(given) == meant


@pytest.mark.parametrize(
    ("lora", "param", "said"),
    [
        ([{"path": "/etc/passwd"}], "lora[0].path", "not opened for clients"),
        ([{"id": 0, "path": "x"}], "lora[0].path", "not opened for clients"),
        ([{}], "lora[0].id", "is required"),
        ([{"id": 0}, {"id": -1}], "lora[1].id", "out of range"),
        ([{"id": 0.5}], "lora[0].id", "whole number"),
        ([{"id": 0, "scale": 1e9}], "lora[0].scale", "out of range"),
        ([{"id": 1}, {"id": 1}], "lora[1].id", "1 is there twice"),
        ([{"id": number} for number in range(17)], "lora", "at most 16"),
        ("a", "lora", "must be a list"),
        ([3], "lora[0]", "must be an object"),
    ],
    ids=["path", "both", "neither", "below 0", "half", "scale", "twice", "many", "text", "number"],
)
def test_what_names_no_adapter(lora: Any, param: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said) as caught:
        _lora(lora)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("given", "assumed"), [({}, ("temperature",)), ({"temperature": 1}, ()), ({"temperature": None}, ("temperature",))]
)
def test_temperature_that_nobody_has_asked_for_is_marked(given: dict[str, Any], assumed: tuple[str, ...]) -> None:
    assert parse_chat(json.dumps({**_CHAT, **given}).encode()).assumed == assumed


def test_length_that_nobody_has_asked_for_is_marked() -> None:
    assert parse_completion(b'{"model": "m", "prompt": "a"}').assumed == ("temperature", "max_tokens")
    assert parse_completion(b'{"model": "m", "prompt": "a", "max_tokens": 5}').assumed == ("temperature",)
