"""`POST /v1/completions`."""

from __future__ import annotations

from typing import Any

import pytest

from nbllm.core import GenerateRequest
from tests.server.serving import COMPLETIONS, TOY, Site, completion


def _texts(site: Site, prompt: Any, **more: Any) -> list[str]:
    answer = site.post(COMPLETIONS, completion(prompt, **more))
    assert answer.status == 200, answer.body
    return [choice["text"] for choice in answer.json()["choices"]]


def test_completion_has_every_required_field(site: Site) -> None:
    body = site.post(COMPLETIONS, completion()).json()
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["model"] == TOY
    assert body["system_fingerprint"].startswith("b")
    assert body["choices"][0] == {
        "index": 0,
        "text": body["choices"][0]["text"],
        "logprobs": None,
        "finish_reason": "length",
    }
    assert body["usage"]["completion_tokens"] == 8


def test_completion_defaults_to_16_tokens(site: Site) -> None:
    body = site.post(COMPLETIONS, completion(max_tokens=None)).json()
    assert body["usage"]["completion_tokens"] == 16


def test_the_four_forms_of_a_prompt_say_the_same(site: Site) -> None:
    ids = list(b"Hi")
    (text,) = _texts(site, "Hi")
    assert _texts(site, ["Hi", "Hi"]) == [text] * 2
    # a text is begun as the model wants it, and ids are taken as they are
    (by_id,) = _texts(site, ids)
    assert _texts(site, [ids, ids]) == [by_id] * 2


def test_completions_of_several_prompts_share_a_batch(site: Site) -> None:
    engine = site.scripted("a", "b", "c")
    assert _texts(site, ["1", "2", "3"]) == ["a", "b", "c"]
    assert [request.text for request in engine.requests if isinstance(request, GenerateRequest)] == ["1", "2", "3"]


def test_choices_are_numbered_prompt_by_prompt(site: Site) -> None:
    body = site.post(COMPLETIONS, completion(["1", "2"], n=2, temperature=1, seed=3)).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]


def test_best_of_gives_the_likeliest(site: Site) -> None:
    body = site.post(COMPLETIONS, completion(n=1, best_of=4, temperature=1, seed=3)).json()
    assert len(body["choices"]) == 1
    assert body["choices"][0]["logprobs"] is None
    assert body["usage"]["completion_tokens"] > 8


@pytest.mark.parametrize("prompt", ["Hi", list(b"Hi")], ids=["text", "ids"])
@pytest.mark.parametrize("stream", [False, True])
def test_echo_begins_with_the_prompt(site: Site, prompt: Any, stream: bool) -> None:
    if not stream:
        assert _texts(site, prompt, echo=True)[0].startswith("Hi")
        return
    events = site.post(COMPLETIONS, completion(prompt, echo=True, stream=True)).events
    assert "".join(event["choices"][0]["text"] for event in events[:-1]).startswith("Hi")


def test_logprobs_have_the_old_shape(site: Site) -> None:
    choice = site.post(COMPLETIONS, completion(logprobs=2, echo=True)).json()["choices"][0]
    told = choice["logprobs"]
    assert set(told) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert "".join(told["tokens"]) == choice["text"]
    assert told["token_logprobs"][0] is None or told["token_logprobs"][0] <= 0
    assert told["text_offset"] == sorted(told["text_offset"])


def test_echoed_logprobs_are_of_the_prompts_tokens_too(site: Site) -> None:
    told = site.post(COMPLETIONS, completion("Hello", logprobs=2, echo=True)).json()["choices"][0]["logprobs"]
    assert told["tokens"][:5] == list("Hello")
    assert all(value < 0 for value in told["token_logprobs"][1:5])


def test_suffix_of_a_model_that_cannot_fill_in(site: Site) -> None:
    answer = site.post(COMPLETIONS, completion(suffix="end"))
    assert answer.status == 400
    assert answer.error["code"] == "unsupported"


def test_stream_is_the_whole_answer_in_pieces(site: Site) -> None:
    whole = _texts(site, ["Hi", "Ho"])
    events = site.post(
        COMPLETIONS, completion(["Hi", "Ho"], stream=True, stream_options={"include_usage": True})
    ).events
    *pieces, usage, done = events
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 16
    texts = ["", ""]
    reasons: list[Any] = [None, None]
    for piece in pieces:
        choice = piece["choices"][0]
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"] or reasons[choice["index"]]
    assert texts == whole
    assert reasons == ["length", "length"]


def test_one_prompt_too_long_is_an_error_of_the_whole_request(site: Site) -> None:
    answer = site.post(COMPLETIONS, completion(["short", "x" * 5000]))
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"
    assert site.post(COMPLETIONS, completion()).status == 200


def test_more_prompts_than_sequences_are_answered_in_turn(site: Site) -> None:
    assert len(_texts(site, [f"prompt {i}" for i in range(40)], max_tokens=2)) == 40


@pytest.mark.parametrize(("count", "wanted"), [(1, "interactive"), (8, "interactive"), (9, "batch")])
def test_long_list_of_prompts_lets_people_go_first(site: Site, count: int, wanted: str) -> None:
    engine = site.scripted(*["said"] * count)
    assert site.post(COMPLETIONS, completion(["Hi"] * count)).status == 200
    assert {request.priority for request in engine.requests} == {wanted}
