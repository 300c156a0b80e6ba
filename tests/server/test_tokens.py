"""`POST /v1/tokenize`, `/v1/detokenize` and `/v1/chat/completions/input_tokens`."""

from __future__ import annotations

from typing import Any

import pytest

from nbllm.testing import IM_END
from tests.server.serving import CHAT, TOY, Site, chat


def test_tokenize_and_detokenize_are_inverse(site: Site) -> None:
    told = site.post("v1/tokenize", {"model": "default", "content": "Grüße"}).json()
    assert told == {"model": TOY, "tokens": list("Grüße".encode()), "count": 7}
    back = site.post("v1/detokenize", {"model": "default", "tokens": told["tokens"]}).json()
    assert back == {"model": TOY, "content": "Grüße"}


@pytest.mark.parametrize(("parse", "count"), [(True, 1), (False, 10)])
def test_tokenize_control_tokens(site: Site, parse: bool, count: int) -> None:
    told = site.post("v1/tokenize", {"model": TOY, "content": "<|im_end|>", "parse_special": parse}).json()
    assert told["count"] == count
    assert (told["tokens"] == [IM_END]) is parse


def test_input_tokens_are_what_the_answer_counts(site: Site) -> None:
    counted = site.post(CHAT + "/input_tokens", chat("How many?")).json()
    assert counted["object"] == "response.input_tokens"
    assert counted["input_tokens"] == site.post(CHAT, chat("How many?")).json()["usage"]["prompt_tokens"]


def test_input_tokens_generate_nothing(site: Site) -> None:
    engine = site.scripted()
    assert site.post(CHAT + "/input_tokens", chat()).status == 200
    assert engine.requests == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        pytest.param("v1/tokenize", {"content": 1}, "content", id="number for text"),
        pytest.param("v1/tokenize", {}, "content", id="nothing"),
        pytest.param("v1/detokenize", {"tokens": ["a"]}, "tokens[0]", id="text for id"),
        pytest.param("v1/detokenize", {"tokens": [-1]}, "tokens[0]", id="negative"),
        pytest.param("v1/detokenize", {"tokens": [0.5]}, "tokens[0]", id="half an id"),
        pytest.param("v1/detokenize", {"tokens": [2**31]}, "tokens[0]", id="beyond 32 bits"),
    ],
)
def test_bad_input_is_named(site: Site, path: str, body: dict[str, Any], param: str) -> None:
    answer = site.post(path, {"model": TOY, **body})
    assert answer.status == 400
    assert answer.error["param"] == param


def test_detokenize_ids_that_the_model_does_not_have(site: Site) -> None:
    answer = site.post("v1/detokenize", {"model": TOY, "tokens": [5000]})
    assert answer.status == 400
    assert "5000" in answer.error["message"]


def test_token_routes_do_not_know_a_model(site: Site) -> None:
    for path, body in (("v1/tokenize", {"content": "x"}), ("v1/detokenize", {"tokens": [1]})):
        assert site.post(path, {"model": "nothing", **body}).error["code"] == "model_not_found"
