"""Ollama's shapes, without a server."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from nbllm.core import Chunk, EngineInfo, FinishReason, ModelInfo, Timings, TokenLogprob, ToolCallDelta, Usage
from nbllm.engine.defaults import STATED
from nbllm.errors import EngineDeadError, InvalidRequestError, ParameterError
from nbllm.wire.decoding import unknown_keys
from nbllm.wire.ollama.answers import Answer, Form, error_line, held_body, line, nanoseconds, rfc3339
from nbllm.wire.ollama.listing import Listed, ps_entry, show_body, tagged, tags_entry, untagged
from nbllm.wire.ollama.shapes import ChatBody, ChatMessage, GenerateBody, ShowBody, model_of, parsed
from nbllm.wire.ollama.vectors import embed_body, embeddings_body
from nbllm.wire.openai.messages import unknown_message_keys

_NOW = 1_696_161_600.0
_INFO = ModelInfo(
    name="toy",
    path="/models/toy.gguf",
    size_bytes=1000,
    architecture="llama",
    quantization="Q4_0",
    parameters=134_515_008,
    kv_bytes_per_token=4,
)
_LISTED = Listed(name="toy", digest="ab" * 32, modified_s=_NOW, info=_INFO)


def _last(text: str = "", reason: FinishReason = "stop", **more: Any) -> Chunk:
    usage, timings = Usage(prompt_tokens=9, completion_tokens=2), Timings(prefill_s=0.5, decode_s=0.25)
    return Chunk(text=text, finish_reason=reason, usage=usage, timings=timings, **more)


def _end(answer: Answer) -> dict[str, Any]:
    return answer.last(_NOW, total_s=2.0, load_s=1.0)


# ---- time


def test_times_are_utc_to_the_microsecond() -> None:
    assert rfc3339(_NOW) == "2023-10-01T12:00:00.000000Z"


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1), (1.5, 1_500_000_000)])
def test_durations_are_nanoseconds_and_never_0(seconds: float, expected: int) -> None:
    assert nanoseconds(seconds) == expected


# ---- answers


def test_stream_of_generate() -> None:
    answer = Answer("generate", "toy:latest")
    answer.follow((5, 6))
    answer.add(Chunk(text="He", tokens=(1,)))
    assert json.loads(answer.line(_NOW)) == {
        "model": "toy:latest",
        "created_at": "2023-10-01T12:00:00.000000Z",
        "response": "He",
        "done": False,
    }
    assert answer.line(_NOW) == b""
    answer.add(_last(tokens=(2,)))
    assert answer.line(_NOW) == b""
    assert _end(answer) == {
        "model": "toy:latest",
        "created_at": "2023-10-01T12:00:00.000000Z",
        "response": "",
        "done": True,
        "done_reason": "stop",
        "context": [5, 6, 1, 2],
        "total_duration": 2_000_000_000,
        "load_duration": 1_000_000_000,
        "prompt_eval_count": 9,
        "prompt_eval_duration": 500_000_000,
        "eval_count": 2,
        "eval_duration": 250_000_000,
    }
    assert answer.usage()["total_tokens"] == 11


def test_whole_answer_has_all_text() -> None:
    answer = Answer("generate", "toy")
    for chunk in (Chunk(text="He", reasoning="Hm"), _last("llo")):
        answer.add(chunk)
    end = _end(answer)
    assert (end["response"], end["thinking"]) == ("Hello", "Hm")
    assert "context" not in end


@pytest.mark.parametrize(
    ("shows", "message"),
    [
        pytest.param(True, {"role": "assistant", "content": "4", "thinking": "2+2"}, id="shown"),
        pytest.param(False, {"role": "assistant", "content": "4"}, id="unwanted"),
    ],
)
def test_thinking_of_a_chat(shows: bool, message: dict[str, Any]) -> None:
    answer = Answer("chat", "toy", shows_thinking=shows)
    answer.add(_last("4", reasoning="2+2"))
    assert _end(answer)["message"] == message


def test_calls_come_whole_with_objects_as_arguments() -> None:
    answer = Answer("chat", "toy")
    answer.add(Chunk(tool_calls=(ToolCallDelta(0, "a", "add", '{"x":'),)))
    assert answer.line(_NOW) == b""
    answer.add(Chunk(tool_calls=(ToolCallDelta(0, arguments=" 1}"), ToolCallDelta(1, "b", "stop", "{}"))))
    (first,) = json.loads(answer.line(_NOW))["message"]["tool_calls"]
    assert first == {"id": "a", "function": {"index": 0, "name": "add", "arguments": {"x": 1}}}
    answer.add(_last(reason="tool_calls"))
    (second,) = json.loads(answer.line(_NOW))["message"]["tool_calls"]
    assert second["function"] == {"index": 1, "name": "stop", "arguments": {}}
    assert _end(answer)["done_reason"] == "stop"


@pytest.mark.parametrize("arguments", ["", '{"x": ', "[1]", "[" * 100_000])
def test_call_that_was_cut_short_is_none(arguments: str) -> None:
    answer = Answer("chat", "toy")
    answer.add(_last(reason="length", tool_calls=(ToolCallDelta(0, "a", "add", arguments),)))
    end = _end(answer)
    assert "tool_calls" not in end["message"]
    assert end["done_reason"] == "length"


@pytest.mark.parametrize(
    ("reason", "told"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("interrupted", "length")],
)
def test_done_reason(reason: FinishReason, told: str) -> None:
    answer = Answer("generate", "toy")
    answer.add(_last(reason=reason))
    assert _end(answer)["done_reason"] == told


def test_logprobs() -> None:
    answer = Answer("chat", "toy")
    answer.add(Chunk(logprobs=(TokenLogprob(1, b"a", -0.5, ((2, b"b", -math.inf),)),)))
    (entry,) = json.loads(answer.line(_NOW))["logprobs"]
    assert (entry["token"], entry["logprob"], entry["bytes"]) == ("a", -0.5, [97])
    assert entry["top_logprobs"] == [{"token": "b", "logprob": -9999.0, "bytes": [98]}]


def test_failure_of_a_chunk_is_raised() -> None:
    with pytest.raises(EngineDeadError):
        Answer("chat", "toy").add(Chunk(finish_reason="error", error=EngineDeadError("gone")))


@pytest.mark.parametrize(("form", "key"), [("generate", "response"), ("chat", "message")])
def test_loading_and_unloading_is_answered(form: Form, key: str) -> None:
    body = held_body(form, "toy", _NOW, "unload")
    assert body[key] in ("", {"role": "assistant", "content": ""})
    assert (body["done"], body["done_reason"]) == (True, "unload")


def test_lines_end_where_a_line_does() -> None:
    assert line({"a": "x\ny"}) == b'{"a":"x\\ny"}\n'
    assert json.loads(error_line("half \ud800")) == {"error": "half ?"}


# ---- requests


@pytest.mark.parametrize("data", [b"", b"  \n"])
def test_empty_body_is_missing(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="missing request body"):
        parsed(data, ChatBody)


@pytest.mark.parametrize("data", [b"{}", b'{"model": null}', b'{"model": " "}', b'{"model": ""}'])
def test_model_is_required(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="model is required"):
        model_of(parsed(data, GenerateBody)[0])


def test_name_counts_as_model_where_a_model_is_managed() -> None:
    assert model_of(parsed(b'{"name": "toy"}', ShowBody)[0]) == "toy"
    with pytest.raises(InvalidRequestError):
        model_of(parsed(b'{"name": "toy"}', ChatBody)[0])


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b'{"model": 5}', "model"),
        (b'{"options": "hot"}', "options"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "messages[0].content"),
        (b'{"tools": [{"type": "function", "function": "f"}]}', "tools[0].function"),
    ],
)
def test_wrong_type_names_its_field(data: bytes, param: str) -> None:
    with pytest.raises(ParameterError) as failure:
        parsed(data, ChatBody)
    assert failure.value.param == param


def test_unknown_keys_are_found_in_messages_too() -> None:
    raw: dict[str, Any] = {"model": "toy", "modle": 1, "messages": [{"role": "user", "content": "x", "tokens": 1}]}
    found = unknown_keys(raw, ChatBody) + unknown_message_keys(raw["messages"], ChatMessage)
    assert found == ("modle", "messages[].tokens")


# ---- models


@pytest.mark.parametrize(
    ("name", "with_tag", "without"),
    [
        ("toy", "toy:latest", "toy"),
        ("toy:latest", "toy:latest", "toy"),
        ("toy:Latest", "toy:Latest", "toy"),
        ("other:7b", "other:7b", "other:7b"),
        ("host:80/toy", "host:80/toy:latest", "host:80/toy"),
        (":latest", ":latest", ":latest"),
    ],
)
def test_tag_that_goes_without_saying(name: str, with_tag: str, without: str) -> None:
    assert (tagged(name), untagged(name)) == (with_tag, without)


def test_entry_of_tags() -> None:
    assert tags_entry(_LISTED) == {
        "name": "toy:latest",
        "model": "toy:latest",
        "modified_at": "2023-10-01T12:00:00.000000Z",
        "size": 1000,
        "digest": "ab" * 32,
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "134.52M",
            "quantization_level": "Q4_0",
        },
    }


@pytest.mark.parametrize(
    ("count", "size"), [(0, ""), (512, "512"), (25_000, "25K"), (7_240_000_000, "7.2B"), (1_000_000_000_000, "1.0T")]
)
def test_number_of_parameters_as_ollama_writes_it(count: int, size: str) -> None:
    info = ModelInfo(name="x", path="x", size_bytes=1, parameters=count)
    entry = tags_entry(Listed(name="x", digest="", modified_s=0, info=info))
    assert entry["details"]["parameter_size"] == size


def test_model_of_another_server_has_no_file() -> None:
    entry = tags_entry(Listed(name="far", digest="ab", modified_s=0, info=None))
    assert (entry["size"], entry["details"]["format"], entry["details"]["families"]) == (0, "", [])


@pytest.mark.parametrize(("kv_type", "layers", "size"), [("f16", 0, 1400), ("q8_0", 5, 1212)])
def test_entry_of_ps_counts_the_cache(kv_type: str, layers: int, size: int) -> None:
    engine = EngineInfo(
        model=_INFO,
        context_length=50,
        max_sequences=2,
        kv_tokens=100,
        kv_type=kv_type,
        gpu_layers=layers,
        defaults=STATED,
    )
    entry = ps_entry(_LISTED, engine, _NOW)
    assert (entry["size"], entry["size_vram"]) == (size, size if layers else 0)
    assert (entry["context_length"], entry["expires_at"]) == (50, "2023-10-01T12:00:00.000000Z")


def test_show_has_no_path_and_only_json() -> None:
    metadata = {"tokenizer.chat_template": "{{ x }}", "general.license": "mit", "a": math.inf, "b": (1, 2), "c": object}
    body = show_body(_LISTED, metadata, ["completion"])
    assert body["modelfile"] == 'FROM toy:latest\nTEMPLATE """{{ x }}"""\n'
    assert (body["template"], body["license"]) == ("{{ x }}", "mit")
    assert body["model_info"] == {"general.license": "mit", "a": None, "b": [1, 2], "c": None}
    assert "/models" not in json.dumps(body)


# ---- vectors


def test_vectors_are_cut_and_of_length_1_again() -> None:
    body = embed_body("toy", [np.array([0.6, 0.8, 0.0])], 3, dimensions=1, total_s=1, load_s=0)
    assert body["embeddings"] == [[1.0]]
    assert (body["prompt_eval_count"], body["total_duration"]) == (3, 10**9)
    with pytest.raises(ParameterError, match="dimensions: 9 is too many"):
        embed_body("toy", [np.ones(3)], 3, dimensions=9, total_s=1, load_s=0)


def test_old_vector_is_as_long_as_it_is() -> None:
    assert embeddings_body(np.array([3.0, 4.0])) == {"embedding": [3.0, 4.0]}
    assert embeddings_body(None) == {"embedding": []}
