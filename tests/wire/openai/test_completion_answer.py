from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from openai.types import Completion

from nbllm.core import Chunk, FinishReason, Timings, TokenLogprob, Usage
from nbllm.errors import EngineDeadError
from nbllm.wire.openai.completion_answer import CompletionAnswer, CompletionStream
from nbllm.wire.openai.completions import CompletionCall
from nbllm.wire.openai.head import Head, completion_id
from tests.wire.openai.bodies import completion_call, done, events, likely

Step = tuple[int, Chunk]
HEAD = Head("cmpl-1", 1700000000, "m", "b123")


def answered(call: CompletionCall, *steps: Step, texts: Sequence[str] | None = None) -> dict[str, Any]:
    answer = CompletionAnswer(HEAD, call, texts)
    for prompt, chunk in steps:
        answer.add(prompt, chunk)
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(answer.body()))
    check_shape(body)
    return body


def streamed(call: CompletionCall, *steps: Step, texts: Sequence[str] | None = None) -> list[dict[str, Any]]:
    stream = CompletionStream(HEAD, call, texts)
    parts = stream.begin() + [event for prompt, chunk in steps for event in stream.events(prompt, chunk)]
    *given, end = events(parts + stream.finish())
    assert end == "[DONE]"
    return given


def check_shape(body: dict[str, Any]) -> None:
    """OpenAI's own types know no null for a first token, which OpenAI's own answers have."""
    plain = msgspec.json.decode(msgspec.json.encode(body))
    for choice in plain["choices"]:
        for name, instead in (("token_logprobs", 0.0), ("top_logprobs", {})):
            values = (choice["logprobs"] or {}).get(name)
            if values and values[0] is None:
                values[0] = instead
    Completion.model_validate_json(msgspec.json.encode(plain), strict=True)


def texts_of(body: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in body["choices"]]


def test_body_has_every_field() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1)
    body = answered(completion_call(), (0, Chunk(text="a")), (0, done(text="b", usage=usage, timings=Timings())))
    assert list(body) == ["id", "object", "created", "model", "system_fingerprint", "choices", "usage", "timings"]
    assert (body["object"], body["system_fingerprint"]) == ("text_completion", "b123")
    assert body["choices"] == [{"text": "ab", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert (body["timings"]["prompt_n"], body["timings"]["cache_n"]) == (2, 1)


def test_choices_are_numbered_prompt_by_prompt() -> None:
    call = completion_call(prompt=["p", "q"], n=2)
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    steps = [(p, done(i, text=f"{p}{i}", usage=usage)) for i in (1, 0) for p in (1, 0)]
    body = answered(call, *steps)
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [
        (0, "00"),
        (1, "01"),
        (2, "10"),
        (3, "11"),
    ]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (6, 8)
    by_stream = {
        choice["index"]: choice["text"]
        for event in streamed(call, *steps)
        for choice in event["choices"]
        if choice["text"]
    }
    assert by_stream == {0: "00", 1: "01", 2: "10", 3: "11"}


def test_echo_puts_the_prompt_before_each_answer() -> None:
    call = completion_call(prompt=["p", "q"], n=2, echo=True)
    steps = [(p, done(i, text="!")) for p in (0, 1) for i in (0, 1)]
    assert texts_of(answered(call, *steps)) == ["p!", "p!", "q!", "q!"]
    texts = [""] * 4
    for event in streamed(call, *steps):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == ["p!", "p!", "q!", "q!"]


def test_echo_of_ids_takes_its_texts_from_the_caller() -> None:
    call = completion_call(prompt=[[1], [2]], echo=True)
    steps = [(0, done(text="a")), (1, done(text="b"))]
    assert texts_of(answered(call, *steps, texts=["x", "y"])) == ["xa", "yb"]
    with pytest.raises(ValueError, match="texts are needed"):
        CompletionAnswer(HEAD, call)


def test_old_logprobs_are_four_lists() -> None:
    face = "😀".encode()
    tokens = (likely(b"a", -0.5, b"a", b"c"), likely(face[:2], -0.1, b"x"), likely(face[2:], -0.2), likely(b"b"))
    (choice,) = answered(completion_call(logprobs=2), (0, done(text="a😀b", logprobs=tokens)))["choices"]
    assert choice["logprobs"] == {
        "tokens": ["a", r"bytes:\xf0\x9f", r"bytes:\x98\x80", "b"],
        "token_logprobs": [-0.5, -0.1, -0.2, -0.5],
        "top_logprobs": [
            {"a": -1.0, "c": -2.0},
            {"x": -1.0, r"bytes:\xf0\x9f": -0.1},
            {r"bytes:\x98\x80": -0.2},
            {"b": -0.5},
        ],
        "text_offset": [0, 1, 1, 2],
    }


def test_logprobs_of_zero_have_no_rivals() -> None:
    (choice,) = answered(completion_call(logprobs=0), (0, done(text="a", logprobs=(likely(b"a"),))))["choices"]
    assert choice["logprobs"]["top_logprobs"] is None
    assert choice["logprobs"]["tokens"] == ["a"]


FACE = "😀".encode()
PROMPTS = {
    "first token has a text": ("Hello world", [b"Hello", b" world"], True, ["Hello", " world"], [0, 5]),
    "the engine began it": ("Hello world", [b"Hello", b" world"], False, ["Hello", " world"], [0, 5]),
    "tokenizer puts a space before": ("Hello you", [b" Hello", b" you"], True, [" Hello", " you"], [0, 5]),
    "control tokens": ("<|im_end|>\nHi", [b"<|im_end|>", b"\n", b"Hi"], True, ["<|im_end|>", "\n", "Hi"], [0, 10, 11]),
    "ends inside a character": ("a\ufffd", [b"a", FACE[:2]], True, ["a", r"bytes:\xf0\x9f"], [0, 1]),
    "one token": ("Hi", [b"Hi"], True, ["Hi"], [0]),
}


@pytest.mark.parametrize(("prompt", "data", "is_whole", "tokens", "offsets"), PROMPTS.values(), ids=PROMPTS.keys())
def test_echoed_prompt_has_likelihoods_but_for_its_first_token(
    prompt: str, data: list[bytes], is_whole: bool, tokens: list[str], offsets: list[int]
) -> None:
    call = completion_call(prompt=prompt, echo=True, logprobs=1, max_tokens=0)
    before = [TokenLogprob(7, data[0], math.nan)] if is_whole else []
    entries = (*before, *(likely(part, -0.5, b"?") for part in data[len(before) :]))
    first = (0, Chunk(prompt_logprobs=entries))
    (choice,) = answered(call, first, (0, done(finish_reason="length")))["choices"]
    nothing: list[None] = [None] * len(before)
    expected = {
        "tokens": tokens,
        "token_logprobs": nothing + [-0.5] * (len(data) - len(before)),
        "top_logprobs": nothing + [{"?": -1.0, token: -0.5} for token in tokens[len(before) :]],
        "text_offset": offsets,
    }
    assert (choice["text"], choice["logprobs"]) == (prompt, expected)
    event = streamed(call, first, (0, done()))[0]["choices"][0]
    assert (event["text"], event["logprobs"]) == (prompt, expected)


def test_likelihoods_of_answers_follow_those_of_the_prompt() -> None:
    call = completion_call(prompt="ab", echo=True, logprobs=0, n=2)
    steps = [
        (0, Chunk(index=0, prompt_logprobs=(likely(b"a"), likely(b"b")), text="c", logprobs=(likely(b"c"),))),
        (0, Chunk(index=1, text="d", logprobs=(likely(b"d"),))),  # shares its prompt with the first
        (0, done(0, text="e", logprobs=(likely(b"e"),))),
        (0, done(1)),
    ]
    first, second = answered(call, *steps)["choices"]
    assert (first["text"], first["logprobs"]["tokens"]) == ("abce", ["a", "b", "c", "e"])
    assert first["logprobs"]["text_offset"] == [0, 1, 2, 3]
    assert (second["text"], second["logprobs"]["tokens"]) == ("abd", ["a", "b", "d"])
    gathered: list[dict[str, list[Any]]] = [{"tokens": [], "text_offset": []} for _ in range(2)]
    for event in streamed(call, *steps):
        for choice in event["choices"]:
            for name, values in gathered[choice["index"]].items():
                values += (choice["logprobs"] or {}).get(name, [])
    assert gathered[0] == {"tokens": ["a", "b", "c", "e"], "text_offset": [0, 1, 2, 3]}
    assert gathered[1] == {"tokens": ["a", "b", "d"], "text_offset": [0, 1, 2]}


def test_best_are_the_likeliest_a_token() -> None:
    call = completion_call(n=2, best_of=4)
    steps = [
        (0, done(0, text="poor", logprobs=(likely(b"x", -3.0),))),
        (0, done(1, text="long", logprobs=(likely(b"x", -0.2),) * 20)),
        (0, done(2, text="")),
        (0, done(3, text="best", logprobs=(likely(b"x", -0.1), likely(b"x", -0.1)))),
    ]
    body = answered(call, *steps)
    assert texts_of(body) == ["best", "long"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert all(choice["logprobs"] is None for choice in body["choices"])


def test_tokens_of_the_answers_that_lost_are_counted() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=5)
    body = answered(completion_call(best_of=2), (0, done(0, usage=usage)), (0, done(1, usage=usage)))
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (3, 10)


def test_stream_is_text_reason_usage_and_end() -> None:
    call = completion_call(stream=True, stream_options={"include_usage": True})
    last = done(usage=Usage(prompt_tokens=3, completion_tokens=2))
    given = streamed(call, (0, Chunk(text="a")), (0, Chunk(tokens=(1,))), (0, Chunk(text="b")), (0, last))
    assert [event["choices"] for event in given] == [
        [{"text": "a", "index": 0, "logprobs": None, "finish_reason": None}],
        [{"text": "b", "index": 0, "logprobs": None, "finish_reason": None}],
        [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        [],
    ]
    assert [event["usage"] and event["usage"]["total_tokens"] for event in given] == [None, None, None, 5]
    assert {event["object"] for event in given} == {"text_completion"}
    plain = streamed(completion_call(stream=True), (0, Chunk(text="a")), (0, last))
    assert all("usage" not in event for event in plain)


def test_logprobs_of_held_back_text_are_streamed() -> None:
    call = completion_call(logprobs=0, stream=True)
    given = streamed(call, (0, Chunk(logprobs=(likely(b"a"),))), (0, done()))
    assert (given[0]["choices"][0]["text"], given[0]["choices"][0]["logprobs"]["tokens"]) == ("", ["a"])


@pytest.mark.parametrize(("reason", "expected"), [("timeout", "length"), ("interrupted", "length"), ("stop", "stop")])
def test_finish_reason_is_one_of_openais(reason: FinishReason, expected: str) -> None:
    assert answered(completion_call(), (0, done(finish_reason=reason)))["choices"][0]["finish_reason"] == expected


def test_error_of_a_chunk_is_raised() -> None:
    broken = done(finish_reason="error", error=EngineDeadError("gone"))
    with pytest.raises(EngineDeadError, match="gone"):
        CompletionAnswer(HEAD, completion_call()).add(0, broken)
    with pytest.raises(EngineDeadError, match="gone"):
        CompletionStream(HEAD, completion_call()).events(0, broken)


def test_ids_say_what_they_are_of() -> None:
    assert completion_id().startswith("cmpl-")
    assert len(completion_id()) > 28
