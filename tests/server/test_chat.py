"""`POST /v1/chat/completions`, whole answers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from nbllm.core import Chunk, GenerateRequest, Message, Tool, ToolCallDelta
from nbllm.testing import ScriptedEngine
from tests.server.serving import CHAT, TOY, Site, chat, wait_until


def _asked(engine: ScriptedEngine) -> GenerateRequest:
    request = engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    return request


def test_chat_answers_with_every_required_field(site: Site) -> None:
    site.scripted("Hello")
    answer = site.post(CHAT, chat())
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.json()
    assert re.fullmatch("chatcmpl-[0-9a-f]{32}", body["id"])
    assert body["object"] == "chat.completion"
    assert body["model"] == TOY
    assert body["system_fingerprint"].startswith("b")
    assert body["created"] > 1_700_000_000
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 22,
        "completion_tokens": 5,
        "total_tokens": 27,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert body["timings"]["predicted_n"] == 5


def test_chat_tells_of_the_cached_prefix(site: Site) -> None:
    site.post(CHAT, chat("The same words"))
    again = site.post(CHAT, chat("The same words")).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 10


def test_chat_passes_every_parameter_on(site: Site) -> None:
    engine = site.scripted(*["x"] * 2)
    given: dict[str, Any] = {
        "n": 2,
        "stop": ["END"],
        "seed": 7,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"65": -100},
        "logprobs": True,
        "top_logprobs": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "typical_p": 0.8,
        "repeat_penalty": 1.2,
    }
    more: dict[str, Any] = {
        "max_tokens": None,
        "max_completion_tokens": 9.0,
        "regex": "[a-z]+",
        "timeout": 60,
        "cache_prompt": False,
    }
    assert site.post(CHAT, chat(**given, **more, reproducible=True, user="Bob")).status == 200
    request = _asked(engine)
    for name, value in given.items():
        expected = {65: -100} if name == "logit_bias" else tuple(value) if isinstance(value, list) else value
        assert getattr(request.sampling, name) == expected, name
    assert request.sampling.max_tokens == 9
    assert request.constraint is not None
    assert (request.constraint.kind, request.constraint.source) == ("regex", "[a-z]+")
    assert request.timeout_s == 60
    assert request.reproducible
    assert not request.cache_prompt


def test_chat_with_n_gives_as_many_choices(site: Site) -> None:
    body = site.post(CHAT, chat(n=3, temperature=1, seed=1)).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == sum(len(c["message"]["content"]) for c in body["choices"])


def test_chat_with_logprobs_reports_each_token(site: Site) -> None:
    choice = site.post(CHAT, chat(logprobs=True, top_logprobs=2)).json()["choices"][0]
    content = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == choice["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in content)


@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        pytest.param({"regex": "[0-9]{4}"}, "[0-9]{4}", id="regex"),
        pytest.param({"choice": ["yes", "no"]}, "yes|no", id="choice"),
        pytest.param({"grammar": 'root ::= "a" | "b"'}, "a|b", id="gbnf"),
        pytest.param({"grammar": 'start: "c" | "d"'}, "c|d", id="lark"),
        pytest.param({"response_format": {"type": "text"}}, ".{1,8}", id="text"),
    ],
)
def test_chat_in_a_shape(site: Site, shape: dict[str, Any], pattern: str) -> None:
    content = site.post(CHAT, chat(**shape)).json()["choices"][0]["message"]["content"]
    assert re.fullmatch(pattern, content, re.DOTALL)


def test_chat_with_a_schema_is_json_of_it(site: Site) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    content = site.post(CHAT, chat(response_format=shape, max_tokens=64)).json()["choices"][0]["message"]["content"]
    assert set(json.loads(content)) == {"ok"}


def test_chat_passes_tools_and_tells_calls(site: Site) -> None:
    calls = [
        Chunk(tool_calls=(ToolCallDelta(0, "call_1", "add", ""),)),
        Chunk(tool_calls=(ToolCallDelta(0, arguments='{"a":1}'),)),
        Chunk(finish_reason="tool_calls"),
    ]
    engine = site.scripted(calls)
    tool = {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object"}}}
    body = site.post(CHAT, chat(tools=[tool], tool_choice="required", parallel_tool_calls=False)).json()
    request = _asked(engine)
    assert request.tools == (Tool(name="add", description="Adds", parameters={"type": "object"}),)
    assert request.tool_choice == "required"
    assert not request.parallel_tool_calls
    choice = body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    ]


def test_chat_takes_a_conversation_with_calls(site: Site) -> None:
    engine = site.scripted("3")
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "short"}]},
        {"role": "user", "content": "1+2", "name": "bob"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
    ]
    assert site.post(CHAT, chat(messages=messages)).status == 200
    told = _asked(engine).messages
    assert told is not None
    assert told[0] == Message("developer", "Be short")
    assert told[2].tool_calls[0].name == "add"
    assert told[3].tool_call_id == "c1"


def test_chat_tells_the_reasoning_apart(site: Site) -> None:
    site.scripted([Chunk(reasoning="Hm. "), "Yes"])
    message = site.post(CHAT, chat(reasoning_effort="low")).json()["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm. "
    assert message["content"] == "Yes"


def test_chat_passes_template_options_on(site: Site) -> None:
    engine = site.scripted("x", "x")
    site.post(CHAT, chat(reasoning_effort="none", chat_template_kwargs={"style": "old"}))
    options = _asked(engine).template_options
    assert options == {"reasoning_effort": "none", "enable_thinking": False, "style": "old"}


def test_null_means_absent(site: Site) -> None:
    nothing = ("n", "stop", "seed", "logit_bias", "tools", "tool_choice", "response_format", "stream", "user", "top_k")
    assert site.post(CHAT, chat() | dict.fromkeys(nothing)).status == 200


def test_unknown_keys_are_taken_and_logged(site: Site) -> None:
    assert site.post(CHAT, chat() | {"temprature": 0, "a\nb": 1}).status == 200
    lines = "\n".join(site.log.lines)
    assert "temprature" in lines
    assert "a\nb" not in lines


@pytest.mark.parametrize("name", ["default", "gpt-4", "TOY", "toy.gguf", " toy "])
def test_a_name_of_the_model_is_resolved(site: Site, name: str) -> None:
    answer = site.post(CHAT, chat(model=name))
    assert answer.status == (404 if name == " toy " else 200)
    if answer.status == 200:
        assert answer.json()["model"] == TOY


def test_the_access_line_tells_who_and_how_much_but_no_text(site: Site) -> None:
    site.post(CHAT, chat("my secret words", user='Bob "M"\n' + "x" * 100))
    line = site.log.access_lines()[-1]
    assert 'key=notebook user="Bob \\"M\\"\\n' in line
    assert re.search(r"model=toy status=200 prompt=\d+ completion=8 ms=\d+", line)
    assert "secret" not in "\n".join(site.log.lines)


def test_keep_alive_of_0_unloads_at_once(site: Site) -> None:
    site.post(CHAT, chat(keep_alive=0))
    wait_until(lambda: not site.cast.runners[0].is_alive)
    site.post(CHAT, chat(keep_alive="5m"))
    assert len(site.cast.runners) == 2
    assert site.cast.runners[1].is_alive
