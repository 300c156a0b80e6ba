"""What is sent to other servers, and what is made of their answers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core import (
    Adapter,
    Constraint,
    GenerateRequest,
    Message,
    SamplingParams,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from nbllm.errors import (
    ContextOverflowError,
    EngineError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    NbllmError,
    UnsupportedError,
)
from nbllm.wire.openai.chat import parse_chat
from nbllm.wire.openai.completions import parse_completion
from nbllm.wire.outgoing.answers import StreamReader, vectors
from nbllm.wire.outgoing.bodies import depends_on_server, embeddings_call, generate_call
from nbllm.wire.outgoing.listing import ServedModel, Server, served_models, version
from nbllm.wire.outgoing.refusals import failure, one_line, refusal

_UNKNOWN, _NBLLM, _LLAMA = Server(), Server("nbllm"), Server("llamacpp")
_VLLM, _OLD_VLLM, _OTHER = Server("vllm", (0, 12)), Server("vllm", (0, 11)), Server("other")
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
_JSON = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _SCHEMA, "strict": True}}
_TOOL = Tool(name="f", description="does f", parameters=_SCHEMA)


def _chat(**options: Any) -> GenerateRequest:
    return GenerateRequest(messages=(Message("user", "hi"),), **options)


def _sampled(**params: Any) -> GenerateRequest:
    return _chat(sampling=SamplingParams(**params))


def _body(request: GenerateRequest, server: Server = _UNKNOWN) -> dict[str, Any]:
    return generate_call(request, "m", server).body


# ---- requests


def test_generate_call_of_a_plain_chat_says_nothing_that_was_not_asked() -> None:
    call = generate_call(_chat(), "m", _UNKNOWN)

    assert call.path == "/chat/completions"
    assert call.body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hi"}],
    }


@pytest.mark.parametrize(
    ("request_", "server", "sent"),
    [
        pytest.param(
            _sampled(temperature=0.0, top_p=0.5, seed=3), _UNKNOWN, {"temperature": 0.0, "top_p": 0.5, "seed": 3}
        ),
        pytest.param(_sampled(presence_penalty=1, stop="x"), _UNKNOWN, {"presence_penalty": 1.0, "stop": ["x"]}),
        pytest.param(_sampled(logit_bias={5: -100}, n=2), _UNKNOWN, {"logit_bias": {"5": -100.0}, "n": 2}),
        pytest.param(_sampled(max_tokens=9), _UNKNOWN, {"max_tokens": 9}),
        pytest.param(_sampled(max_tokens=9), Server("openai"), {"max_completion_tokens": 9}),
        pytest.param(_sampled(logprobs=True, top_logprobs=2), _UNKNOWN, {"logprobs": True, "top_logprobs": 2}),
        pytest.param(_sampled(top_k=5, min_p=0.1), _VLLM, {"top_k": 5, "min_p": 0.1}),
        pytest.param(
            _sampled(typical_p=0.5, repeat_penalty=1.1, repeat_last_n=9),
            _LLAMA,
            {"typical_p": 0.5, "repeat_penalty": 1.1, "repeat_last_n": 9},
        ),
        pytest.param(_chat(reproducible=True), _NBLLM, {"reproducible": True}),
        pytest.param(_chat(cache_prompt=False), _LLAMA, {"cache_prompt": False}),
        pytest.param(_chat(template_options={"a": 1}), _VLLM, {"chat_template_kwargs": {"a": 1}}),
        pytest.param(
            _chat(continue_final=True), _VLLM, {"continue_final_message": True, "add_generation_prompt": False}
        ),
        pytest.param(
            _chat(constraint=Constraint("json_schema", json.dumps(_SCHEMA))), _UNKNOWN, {"response_format": _JSON}
        ),
        pytest.param(
            _chat(constraint=Constraint("json_schema", '{"type": "object"}')),
            _UNKNOWN,
            {"response_format": {"type": "json_object"}},
        ),
        pytest.param(_chat(constraint=Constraint("choice", '["a"]')), _NBLLM, {"choice": ["a"]}),
        pytest.param(_chat(constraint=Constraint("gbnf", 'root ::= "a"')), _LLAMA, {"grammar": 'root ::= "a"'}),
        pytest.param(
            _chat(constraint=Constraint("choice", json.dumps(['a"\\', "b\n"]))),
            _LLAMA,
            {"grammar": r'root ::= "a\"\\" | "b\x0A"'},
        ),
        pytest.param(_chat(constraint=Constraint("regex", "a+")), _VLLM, {"structured_outputs": {"regex": "a+"}}),
        pytest.param(_chat(constraint=Constraint("regex", "a+")), _OLD_VLLM, {"guided_regex": "a+"}),
        pytest.param(_chat(tools=(_TOOL,), tool_choice="none"), _UNKNOWN, {"tool_choice": "none"}),
        pytest.param(_chat(tools=(_TOOL,), tool_choice="required"), _UNKNOWN, {"tool_choice": "required"}),
        pytest.param(
            _chat(tools=(_TOOL,), tool_choice="required", forced_tool="f", parallel_tool_calls=False),
            _UNKNOWN,
            {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
        ),
        pytest.param(
            _chat(tools=(_TOOL,)),
            _UNKNOWN,
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "description": "does f", "parameters": _SCHEMA}}
                ]
            },
        ),
        pytest.param(GenerateRequest(text="a", suffix="b"), _UNKNOWN, {"prompt": "a", "suffix": "b", "max_tokens": 16}),
        pytest.param(GenerateRequest(tokens=(1,)), _UNKNOWN, {"prompt": [1]}),
        pytest.param(
            GenerateRequest(text="a", sampling=SamplingParams(logprobs=True, top_logprobs=3)), _UNKNOWN, {"logprobs": 3}
        ),
        pytest.param(
            GenerateRequest(text="a", constraint=Constraint("json_schema", "{}")), _LLAMA, {"json_schema": {}}
        ),
    ],
)
def test_generate_call_sends(request_: GenerateRequest, server: Server, sent: dict[str, Any]) -> None:
    assert sent.items() <= _body(request_, server).items()
    msgspec.json.encode(_body(request_, server))


@pytest.mark.parametrize(
    ("request_", "server", "named"),
    [
        pytest.param(_sampled(top_k=5), _OTHER, "top_k"),
        pytest.param(_sampled(repeat_penalty=1.1), _VLLM, "repeat_penalty"),
        pytest.param(_chat(reproducible=True), _LLAMA, "reproducible"),
        pytest.param(_chat(adapters=(Adapter("/a.gguf"),)), _NBLLM, "lora"),
        pytest.param(_chat(template="{{ messages }}"), _NBLLM, "template"),
        pytest.param(_chat(cache_prompt=False), _OTHER, "cache_prompt"),
        pytest.param(_chat(template_options={"a": 1}), _OTHER, "template_options"),
        pytest.param(_chat(continue_final=True), _LLAMA, "continue_final"),
        pytest.param(_chat(constraint=Constraint("regex", "a")), _LLAMA, "regex: llama-server"),
        pytest.param(_chat(constraint=Constraint("lark", "start: A")), _LLAMA, "grammar"),
        pytest.param(_chat(constraint=Constraint("gbnf", "root ::= x")), _VLLM, "grammar"),
        pytest.param(_chat(constraint=Constraint("regex", "a")), Server("vllm"), "regex: this version of vLLM"),
        pytest.param(GenerateRequest(text="a", constraint=Constraint("json_schema", "{}")), _OTHER, "response_format"),
    ],
)
def test_generate_call_refuses_what_the_server_would_ignore(
    request_: GenerateRequest, server: Server, named: str
) -> None:
    assert depends_on_server(request_)
    with pytest.raises(UnsupportedError, match=f"^{named}"):
        generate_call(request_, "m", server)


def test_generate_call_has_no_prompt_logprobs() -> None:
    with pytest.raises(UnsupportedError, match="prompt_logprobs"):
        generate_call(_chat(prompt_logprobs=True), "m", _NBLLM)


def test_generate_call_writes_a_conversation_with_tools() -> None:
    turns = (
        Message("system", "s"),
        Message("assistant", "", reasoning="hm", tool_calls=(ToolCall("c1", "f", '{"a": 1}'),)),
        Message("tool", "done", tool_call_id="c1"),
        Message("user", "thanks", name="ann"),
    )
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    request = GenerateRequest(messages=turns)

    assert depends_on_server(request)
    assert _body(request, _OTHER)["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": "c1"},
        {"role": "user", "content": "thanks", "name": "ann"},
    ]
    assert _body(request, _LLAMA)["messages"][1]["reasoning_content"] == "hm"


@pytest.mark.parametrize(
    "request_",
    [
        _sampled(
            temperature=0.5, top_k=3, min_p=0.1, typical_p=0.9, repeat_penalty=1.1, repeat_last_n=5, seed=1, stop="x"
        ),
        _sampled(temperature=1.0, max_tokens=5, n=2, logprobs=True, top_logprobs=2, logit_bias={5: 1}),
        _chat(constraint=Constraint("regex", "a+"), sampling=SamplingParams(temperature=1), reproducible=True),
        _chat(constraint=Constraint("choice", '["a","b"]'), sampling=SamplingParams(temperature=1), cache_prompt=False),
        _chat(tools=(_TOOL,), tool_choice="required", forced_tool="f", sampling=SamplingParams(temperature=1)),
    ],
)
def test_generate_call_means_the_same_to_nbllms_own_server(request_: GenerateRequest) -> None:
    call = parse_chat(msgspec.json.encode(_body(request_, _NBLLM)))

    assert call.request == request_
    assert not call.unknown


def test_generate_call_of_a_text_means_the_same_to_nbllms_own_server() -> None:
    request = GenerateRequest(text="a", suffix="b", sampling=SamplingParams(temperature=0.5, max_tokens=3))
    call = parse_completion(msgspec.json.encode(_body(request, _NBLLM)))

    assert (call.requests[0].text, call.requests[0].suffix, call.unknown) == ("a", "b", ())
    assert call.requests[0].sampling == request.sampling


def test_embeddings_call_asks_for_numbers() -> None:
    call = embeddings_call(("a", "b"), "m")

    assert (call.path, call.body) == ("/embeddings", {"model": "m", "input": ["a", "b"], "encoding_format": "float"})


# ---- answers


def _event(index: int = 0, reason: str | None = None, **delta: Any) -> str:
    return json.dumps({"choices": [{"index": index, "delta": delta, "finish_reason": reason}]})


def test_stream_reader_reads_reasoning_and_tool_calls() -> None:
    reader = StreamReader(1)
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": "{}"}}

    assert reader.read(_event(role="assistant", content="")) == []
    assert [chunk.reasoning for chunk in reader.read(_event(reasoning_content="hm"))] == ["hm"]
    assert [chunk.reasoning for chunk in reader.read(_event(reasoning="so"))] == ["so"]
    assert reader.read(_event(tool_calls=[call]))[0].tool_calls == (ToolCallDelta(0, "c", "f"),)
    assert reader.read(_event(tool_calls=[more]))[0].tool_calls == (ToolCallDelta(0, arguments="{}"),)
    assert reader.read(_event(reason="tool_calls")) == []
    assert reader.read(" [DONE] ") == []
    assert (reader.is_done, reader.is_complete) == (True, True)
    assert reader.last_chunks(None, Timings())[0].finish_reason == "tool_calls"


def test_stream_reader_takes_arguments_that_are_no_text() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}

    (chunk,) = StreamReader(1).read(_event(tool_calls=[call]))

    assert chunk.tool_calls == (ToolCallDelta(0, None, "f", '{"a":1}'),)


def test_stream_reader_reads_both_shapes_of_logprobs() -> None:
    entry = {"token": "é", "logprob": -0.5, "bytes": [195], "id": 9, "top_logprobs": [{"token": "b", "logprob": -1}]}
    new = json.dumps({"choices": [{"delta": {"content": "é"}, "logprobs": {"content": [entry]}}]})
    told = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -0.25],
        "top_logprobs": [None, {"c": -2}],
        "text_offset": [0, 1],
    }
    old = json.dumps({"choices": [{"text": "ab", "logprobs": told}]})

    assert StreamReader(1).read(new)[0].logprobs == (TokenLogprob(9, b"\xc3", -0.5, ((-1, b"b", -1.0),)),)
    assert StreamReader(1).read(old)[0].logprobs == (
        TokenLogprob(-1, b"a", 0.0),
        TokenLogprob(-1, b"b", -0.25, ((-1, b"c", -2.0),)),
    )


def test_stream_reader_takes_llama_servers_timings() -> None:
    reader = StreamReader(1)
    numbers = {"timings": {"prompt_ms": 100, "predicted_ms": 2000, "cache_n": 4}, "usage": {"prompt_tokens": 6}}
    reader.read(json.dumps({"choices": [], **numbers}))

    (last,) = reader.last_chunks(7, Timings(queue_s=1, first_token_s=2, prefill_s=3, decode_s=4))

    assert last.timings == Timings(queue_s=1, first_token_s=2, prefill_s=0.1, decode_s=2.0)
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.cached_tokens, last.seed) == (6, 4, 7)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("function_call", "tool_calls"),
        ("abort", "interrupted"),
        ("eos", "stop"),
    ],
)
def test_stream_reader_knows_why_an_answer_ended(reason: str, kept: str) -> None:
    reader = StreamReader(1)
    reader.read(_event(reason=reason))

    assert reader.last_chunks(None, Timings())[0].finish_reason == kept


def test_stream_reader_of_done_without_an_end_is_an_error() -> None:
    reader = StreamReader(1)
    reader.read("[DONE]")

    assert "of 1 answers the server brought 0 to an end" in str(reader.last_chunks(None, Timings())[0].error)


_KEYS = (
    "choices index delta message content text tool_calls function arguments logprobs tokens bytes usage timings error "
    "finish_reason data id meta code embedding"
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS.split()), inner, max_size=4),
    max_leaves=20,
)


@given(_json)
def test_whatever_a_server_sends_is_read_or_refused(value: Any) -> None:
    text = json.dumps(value)
    reader = StreamReader(2)
    try:
        reader.read(text)
        reader.read(json.dumps({"choices": [value]}))
        reader.read(json.dumps({"choices": [{"delta": value, "logprobs": value}]}))
        reader.last_chunks(None, Timings())
        vectors(text.encode(), 1)
    except EngineError:
        pass
    served_models(value)
    version(value)
    refused = refusal(400, text.encode())
    assert isinstance(failure(refused, url="u", model="m", key_name="api_key", has_key=False), NbllmError)


# ---- listing


def test_served_models_reads_what_each_program_tells() -> None:
    body = {
        "data": [
            {"id": "a", "owned_by": "vllm", "max_model_len": 4096},
            {"id": "b", "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192, "n_params": True}},
            {"id": "c", "owned_by": "library"},
            {"id": 5},
            "d",
        ]
    }

    assert served_models(body) == [
        ServedModel(name="a", kind="vllm", context_length=4096),
        ServedModel(name="b", kind="llamacpp", trained_length=8192),
        ServedModel(name="c"),
    ]
    assert served_models({"id": "a", "owned_by": "nbllm"}) == [ServedModel(name="a", kind="nbllm")]
    assert served_models(["a"]) is None
    assert served_models({"error": "x"}) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [({"version": "0.12.0rc1"}, (0, 12)), ({"version": "v0.9.1"}, (0, 9)), ({"version": "dev"}, ()), ([], ())],
)
def test_version_is_two_numbers(body: object, expected: tuple[int, ...]) -> None:
    assert version(body) == expected


# ---- refusals


def _failure(status: int, error: Any, secret: str | None = None, **options: Any) -> NbllmError:
    refused = refusal(status, json.dumps({"error": error}).encode(), secret)
    return failure(refused, **{"url": "http://a/v1", "model": "m", "key_name": "api_key", "has_key": True, **options})


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        ({"type": "exceed_context_size_error", "code": 400, "n_prompt_tokens": 90, "n_ctx": 40}, (90, 40)),
        (
            {
                "code": "context_length_exceeded",
                "message": "This model's maximum context length is 8192 tokens. However, your messages resulted in "
                "9001 tokens.",
            },
            (9001, 8192),
        ),
        (
            {
                "code": 400,
                "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens "
                "(4000 in the messages, 1000 in the completion).",
            },
            (5000, 4096),
        ),
        ({"code": "context_length_exceeded", "message": str(ContextOverflowError(1234567, 4096))}, (1234567, 4096)),
    ],
    ids=["llama-server", "openai", "vllm", "nbllm"],
)
def test_failure_of_a_long_prompt_has_both_counts(error: dict[str, Any], counts: tuple[int, int]) -> None:
    overflow = _failure(400, error)

    assert isinstance(overflow, ContextOverflowError)
    assert (overflow.prompt_tokens, overflow.context_length) == counts


def test_failure_of_a_long_prompt_without_counts_says_what_the_server_said() -> None:
    error = _failure(400, {"code": "context_length_exceeded", "message": "too long"})

    assert type(error) is InvalidRequestError
    assert "does not fit into the context of 'm': too long" in str(error)


@pytest.mark.parametrize(
    ("status", "options", "kind", "message"),
    [
        (401, {"has_key": False}, ModelError, 'wants a key (401): give nbllm.connect api_key="..."; it says: x'),
        (401, {"key_name": "MY_KEY"}, ModelError, "does not know the key in MY_KEY (401)"),
        (404, {}, ModelNotFoundError, "has no model 'm', or is no OpenAI-compatible address: x"),
        (413, {}, InvalidRequestError, "refused the request: x"),
        (500, {}, EngineError, "failed (500): x"),
    ],
)
def test_failure_says_what_to_do(status: int, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    error = _failure(status, {"message": "x"}, **options)

    assert type(error) is kind
    assert message in str(error)


def test_one_line_has_no_secret_no_control_characters_and_an_end() -> None:
    assert one_line("a sk-1\r\n\x1b]0;b\u202e", "sk-1") == "a *** ]0;b"
    assert len(one_line("x" * 10_000)) == 301


def test_refusal_is_temporary_only_when_waiting_helps() -> None:
    assert refusal(503, b"").is_temporary
    assert refusal(429, b"{}").is_temporary
    assert not refusal(429, b'{"error": {"code": "insufficient_quota"}}').is_temporary
    assert not refusal(500, b"").is_temporary
