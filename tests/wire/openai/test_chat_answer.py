from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from nbllm.core import Chunk, FinishReason, Timings, ToolCallDelta, Usage
from nbllm.errors import EngineDeadError, ParameterError
from nbllm.wire.openai.chat import ChatCall, parse_chat
from nbllm.wire.openai.chat_answer import ChatAnswer, ChatStream
from nbllm.wire.openai.head import Head, chat_id
from tests.wire.openai.bodies import chat, done, events, likely

CALLS = (
    Chunk(tool_calls=(ToolCallDelta(0, "c1", "f"),)),
    Chunk(tool_calls=(ToolCallDelta(0, arguments='{"a"'), ToolCallDelta(0, arguments=":1}"))),
    Chunk(tool_calls=(ToolCallDelta(1, "c2", "g", "{}"),)),
    done(finish_reason="tool_calls"),
)


HEAD = Head("chatcmpl-1", 1700000000, "m", "b123")


def asked(num_choices: int = 1, **fields: Any) -> ChatCall:
    return parse_chat(chat(n=num_choices, **fields))


def answered(*chunks: Chunk, num_choices: int = 1, **fields: Any) -> dict[str, Any]:
    """The body, known to be JSON and what OpenAI's client takes for an answer."""
    answer = ChatAnswer(HEAD, asked(num_choices, **fields))
    for chunk in chunks:
        answer.add(chunk)
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(answer.body()))
    ChatCompletion.model_validate_json(msgspec.json.encode(body), strict=True)
    return body


def streamed(*chunks: Chunk, num_choices: int = 1, include_usage: bool = False) -> list[dict[str, Any]]:
    """The events but `[DONE]`, each what OpenAI's client takes for one."""
    call = asked(num_choices, stream=True, stream_options={"include_usage": include_usage})
    stream = ChatStream(HEAD, call)
    parts = stream.begin() + [event for chunk in chunks for event in stream.events(chunk)] + stream.finish()
    *given, end = events(parts)
    assert end == "[DONE]"
    for event in given:
        ChatCompletionChunk.model_validate_json(msgspec.json.encode(event), strict=True)
    return given


def deltas(given: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [choice["delta"] for event in given for choice in event["choices"] if choice["index"] == index]


def test_body_has_every_field() -> None:
    usage = Usage(prompt_tokens=13, completion_tokens=5, cached_tokens=3, reasoning_tokens=2)
    timings = Timings(queue_s=1, prefill_s=0.25, first_token_s=1.25, decode_s=0.5)
    body = answered(Chunk(text="Hel"), Chunk(text="lo"), done(usage=usage, timings=timings))
    assert body == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "system_fingerprint": "b123",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 13,
            "completion_tokens": 5,
            "total_tokens": 18,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        "timings": {
            "prompt_n": 10,
            "cache_n": 3,
            "prompt_ms": 250.0,
            "predicted_n": 5,
            "predicted_ms": 500.0,
            "predicted_per_second": 8.0,
        },
    }


def test_reasoning_stands_beside_the_content() -> None:
    message = answered(Chunk(reasoning="h"), Chunk(reasoning="m", text="y"), done())["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "y")


def test_tool_calls_are_put_together() -> None:
    (choice,) = answered(*CALLS)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_text_before_a_tool_call_is_kept() -> None:
    message = answered(Chunk(text="Let me see."), *CALLS)["choices"][0]["message"]
    assert message["content"] == "Let me see."
    assert len(message["tool_calls"]) == 2


def test_empty_answer_has_a_content() -> None:
    assert answered(done())["choices"][0]["message"]["content"] == ""


def test_choices_share_their_prompt() -> None:
    first = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=2)
    second = Usage(prompt_tokens=10, completion_tokens=6, cached_tokens=10)
    body = answered(
        Chunk(index=1, text="b"),
        Chunk(index=0, text="a"),
        done(1, usage=second, timings=Timings(decode_s=2.0)),
        done(0, usage=first, timings=Timings(decode_s=1.0, prefill_s=0.1)),
        num_choices=2,
    )
    assert [choice["message"]["content"] for choice in body["choices"]] == ["a", "b"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (10, 10)
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 2
    assert body["timings"]["predicted_per_second"] == 4.0


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("timeout", "length"),
        ("interrupted", "length"),
    ],
)
def test_finish_reason_is_one_of_openais(reason: FinishReason, expected: str) -> None:
    assert answered(done(finish_reason=reason))["choices"][0]["finish_reason"] == expected
    assert streamed(done(finish_reason=reason))[-1]["choices"][0]["finish_reason"] == expected


@pytest.mark.parametrize(
    ("reason", "ended_by"), [("timeout", "timeout"), ("interrupted", "interrupted"), ("length", None)]
)
def test_answer_that_was_cut_from_outside_says_so(reason: FinishReason, ended_by: str | None) -> None:
    last = done(text="a", finish_reason=reason, usage=Usage(completion_tokens=1))
    for choice in (answered(last)["choices"][0], streamed(last)[-1]["choices"][0]):
        assert (choice["finish_reason"], choice.get("ended_by")) == ("length", ended_by)


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(("choice", "content"), [("required", None), ("auto", "")])
def test_promised_call_that_was_cut_has_no_content(choice: str, content: str | None) -> None:
    last = done(finish_reason="length", usage=Usage(completion_tokens=3))
    (told,) = answered(last, tools=[TOOL], tool_choice=choice)["choices"]
    assert (told["message"]["content"], "tool_calls" in told["message"]) == (content, False)


def test_time_that_is_up_before_the_first_token_is_an_error() -> None:
    nothing = done(finish_reason="timeout", usage=Usage(prompt_tokens=3))
    with pytest.raises(ParameterError, match=r"^timeout: it passed before the first token"):
        answered(nothing)
    with pytest.raises(ParameterError, match=r"^timeout: it passed before the first token"):
        streamed(nothing)
    assert answered(done(finish_reason="length", usage=Usage(prompt_tokens=3)))["choices"]


def test_logprobs_of_parts_of_characters_have_exact_bytes() -> None:
    tokens = (likely(b"a", -0.25, b"a", b"\xf0\x9f"), likely("😀".encode()[:2], float("-inf")))
    (choice,) = answered(Chunk(text="a", logprobs=tokens), done())["choices"]
    assert choice["logprobs"] == {
        "refusal": None,
        "content": [
            {
                "token": "a",
                "logprob": -0.25,
                "bytes": [97],
                "top_logprobs": [
                    {"token": "a", "logprob": -1.0, "bytes": [97]},
                    {"token": "\ufffd", "logprob": -2.0, "bytes": [0xF0, 0x9F]},
                ],
            },
            {"token": "\ufffd", "logprob": -9999.0, "bytes": [0xF0, 0x9F], "top_logprobs": []},
        ],
    }


def test_stream_is_role_text_reason_and_end() -> None:
    given = streamed(Chunk(text="Hel"), Chunk(text="lo"), done(text="!"))
    assert deltas(given) == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {"content": "!"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in given] == [None, None, None, None, "stop"]
    assert given[1] == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "m",
        "system_fingerprint": "b123",
        "choices": [{"index": 0, "delta": {"content": "Hel"}, "logprobs": None, "finish_reason": None}],
    }


def test_usage_comes_last_and_only_if_asked_for() -> None:
    last = done(usage=Usage(prompt_tokens=3, completion_tokens=1), timings=Timings(prefill_s=0.5))
    *before, final = streamed(Chunk(text="a"), last, include_usage=True)
    assert all(event["usage"] is None for event in before)
    assert final["choices"] == []
    assert final["usage"]["total_tokens"] == 4
    assert final["timings"]["prompt_ms"] == 500.0
    assert (final["id"], final["object"]) == ("chatcmpl-1", "chat.completion.chunk")
    assert all("usage" not in event for event in streamed(Chunk(text="a"), last))


def test_tool_calls_are_streamed_in_pieces_with_their_index() -> None:
    pieces = [piece for delta in deltas(streamed(*CALLS)) for piece in delta.get("tool_calls", ())]
    assert pieces == [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_each_choice_has_its_own_role_and_reason() -> None:
    given = streamed(
        Chunk(index=1, text="b"), Chunk(index=0, text="a"), done(0), done(1, finish_reason="length"), num_choices=2
    )
    for index, text in enumerate("ab"):
        assert deltas(given, index) == [{"role": "assistant", "content": ""}, {"content": text}, {}]


def test_reasoning_is_streamed_before_text() -> None:
    assert deltas(streamed(Chunk(reasoning="hm", text="y")))[1:] == [{"reasoning_content": "hm"}, {"content": "y"}]


def test_logprobs_go_with_the_last_piece_of_their_chunk() -> None:
    tokens = (likely(b"a"), likely(b"b"))
    given = streamed(Chunk(reasoning="a", text="b", logprobs=tokens), Chunk(text="c"))
    marks = [event["choices"][0]["logprobs"] for event in given]
    assert [mark and len(mark["content"]) for mark in marks] == [None, None, 2, None]


def test_logprobs_of_held_back_text_are_not_lost() -> None:
    given = streamed(Chunk(logprobs=(likely(b"a"),)))
    assert given[1]["choices"][0]["delta"] == {"content": ""}
    assert given[1]["choices"][0]["logprobs"]["content"][0]["token"] == "a"


def test_chunk_without_news_makes_no_event() -> None:
    assert ChatStream(HEAD, asked()).events(Chunk(tokens=(1,))) == []


def test_error_of_a_chunk_is_raised() -> None:
    broken = done(finish_reason="error", error=EngineDeadError("gone"))
    with pytest.raises(EngineDeadError, match="gone"):
        ChatAnswer(HEAD, asked()).add(broken)
    with pytest.raises(EngineDeadError, match="gone"):
        ChatStream(HEAD, asked()).events(broken)


def test_ids_are_new_and_long_enough() -> None:
    ids = {chat_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(name.removeprefix("chatcmpl-")) >= 24 for name in ids)


chunks = st.builds(
    Chunk,
    index=st.integers(0, 2),
    text=st.text(max_size=5),
    reasoning=st.text(max_size=5),
    logprobs=st.lists(st.builds(likely, st.binary(max_size=4), st.floats()), max_size=2).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(chunks, max_size=8))
def test_stream_adds_up_to_the_answer(given: list[Chunk]) -> None:
    every = [*given, *(done(index) for index in range(3))]
    whole = answered(*every, num_choices=3)
    parts = streamed(*every, num_choices=3)
    for choice in whole["choices"]:
        index, message = choice["index"], choice["message"]
        mine = deltas(parts, index)
        assert "".join(delta.get("content", "") for delta in mine) == message["content"]
        assert "".join(delta.get("reasoning_content", "") for delta in mine) == message.get("reasoning_content", "")
        entries = [
            entry
            for event in parts
            for part in event["choices"]
            if part["index"] == index and part["logprobs"]
            for entry in part["logprobs"]["content"]
        ]
        assert entries == (choice["logprobs"] or {"content": []})["content"]
