from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from nbllm.chat.callformats import HERMES
from nbllm.chat.callgrammar import call_grammar
from nbllm.core import Constraint, Message, SamplingParams, Tool, ToolCall
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.wire.openai.chat import ChatCall, parse_chat
from nbllm.wire.openai.tokens import parse_input_tokens
from tests.wire.openai.bodies import USER, chat, nested

TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def parsed(**fields: Any) -> ChatCall:
    return parse_chat(chat(**fields))


def turns(*given: dict[str, Any]) -> tuple[Message, ...] | None:
    return parsed(messages=list(given)).request.messages


def test_smallest_request_has_openais_defaults() -> None:
    call = parsed()
    assert call.model == "m"
    assert call.request.messages == (Message("user", "hi"),)
    assert call.request.sampling == SamplingParams(temperature=1.0)
    assert (call.stream, call.include_usage, call.keep_alive, call.user, call.unknown) == (False, False, None, None, ())
    assert call.request.cache_prompt
    assert not call.request.reproducible


def test_every_sampling_parameter_arrives() -> None:
    given: dict[str, Any] = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 40,
        "min_p": 0.05,
        "typical_p": 0.9,
        "repeat_penalty": 1.1,
        "repeat_last_n": 64,
        "presence_penalty": -1,
        "frequency_penalty": 1.5,
        "max_tokens": 1688.0,
        "seed": 7,
        "stop": ["a", "b"],
        "logit_bias": {"50256": -100},
        "logprobs": True,
        "top_logprobs": 3,
        "n": 2,
    }
    expected = given | {"stop": ("a", "b"), "logit_bias": {50256: -100}}
    params = parsed(**given).request.sampling
    assert params == SamplingParams(**expected)
    assert isinstance(params.max_tokens, int)


def test_every_other_option_arrives() -> None:
    call = parsed(
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
        user="u",
        keep_alive="1h30m",
        cache_prompt=False,
        reproducible=True,
        timeout=2.5,
        parallel_tool_calls=False,
        tools=[TOOL],
    )
    assert (call.stream, call.include_usage, call.user, call.keep_alive) == (True, True, "u", 5400.0)
    request = call.request
    assert (request.cache_prompt, request.reproducible, request.timeout_s) == (False, True, 2.5)
    assert not request.parallel_tool_calls


def test_null_means_absent_for_every_optional_field() -> None:
    from nbllm.wire.openai.shapes import ChatBody

    optional = [name for name in ChatBody.__struct_encode_fields__ if name not in ("model", "messages")]
    assert parsed(**dict.fromkeys(optional)) == parsed()


def test_max_completion_tokens_wins_and_is_named() -> None:
    assert parsed(max_tokens=5, max_completion_tokens=9.0).request.sampling.max_tokens == 9
    with pytest.raises(ParameterError) as caught:
        parsed(max_completion_tokens=-1)
    assert caught.value.param == "max_completion_tokens"


def test_content_is_a_string_or_parts_of_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {}}]
    assert turns({"role": "user", "content": parts}) == (Message("user", "ab"),)


def test_every_role_and_field_of_a_message_arrives() -> None:
    assert turns(
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d", "name": "n"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "reasoning_content": "r"},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": [], "tool_calls": [CALL]},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": [{"type": "text", "text": "a "}, {"type": "refusal", "refusal": "no"}]},
    ) == (
        Message("system", "s"),
        Message("developer", "d", name="n"),
        Message("user", ""),
        Message("assistant", "", reasoning="r", tool_calls=(ToolCall("c1", "f", "{}"),)),
        Message("tool", "42", tool_call_id="c1"),
        Message("assistant", ""),
        Message("assistant", "", tool_calls=(ToolCall("c1", "f", "{}"),)),
        Message("assistant", ""),
        Message("assistant", "a no"),
    )


def part(kind: str, **fields: Any) -> list[Any]:
    return [*USER, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind, **fields}]}]


MESSAGES: dict[str, tuple[Any, str, str]] = {
    "none": ([], "messages", "is empty"),
    "no list": ({}, "messages", "must be a list, not an object"),
    "a string": (["hi"], "messages[0]", "must be an object, not a string"),
    "no role": ([{"content": "a"}], "messages[0].role", "is required"),
    "unknown role": ([{"role": "x" * 999, "content": "a"}], "messages[0].role", "is not one of system, developer"),
    "function role": ([{"role": "function", "content": "a", "name": "f"}], "messages[0].role", "use 'tool'"),
    "function_call": (
        [{"role": "assistant", "content": None, "function_call": {}}],
        "messages[0].function_call",
        "use tool_calls",
    ),
    "no content": ([{"role": "user"}], "messages[0].content", "is required"),
    "null content": ([{"role": "user", "content": None}], "messages[0].content", "is required"),
    "a user's refusal": (part("refusal", refusal="no"), "messages[1].content[1]", "'refusal' is not supported"),
    "refusal without a text": (
        [{"role": "assistant", "content": [{"type": "refusal"}]}],
        "messages[0].content[0].refusal",
        "is required",
    ),
    "call of a custom tool": (
        [{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": ""}}]}],
        "messages[0].tool_calls[0].type",
        "custom tools are not supported",
    ),
    "a number": ([{"role": "user", "content": 3}], "messages[0].content", "must be a string or a list, not a number"),
    "no parts": ([{"role": "user", "content": []}], "messages[0].content", "is an empty list"),
    "image": (
        part("image_url", image_url={"url": "http://a"}),
        "messages[1].content[1]",
        "'image_url' is not supported",
    ),
    "audio": (part("input_audio", input_audio={}), "messages[1].content[1]", "'input_audio' is not supported yet"),
    "file": (part("file", file={}), "messages[1].content[1]", "'file' is not supported yet"),
    "text part without text": (part("text"), "messages[1].content[1].text", "is required"),
    "part without type": ([{"role": "user", "content": [{"text": "a"}]}], "messages[0].content[0].type", "is required"),
    "tool without id": ([{"role": "tool", "content": "4"}], "messages[0].tool_call_id", "is required"),
    "calls of a user": (
        [{"role": "user", "content": "a", "tool_calls": [CALL]}],
        "messages[0].tool_calls",
        "goes with the role assistant only",
    ),
    "call without id": (
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}],
        "messages[0].tool_calls[0].id",
        "is required",
    ),
    "call of another type": (
        [{"role": "assistant", "tool_calls": [CALL | {"type": "web"}]}],
        "messages[0].tool_calls[0].type",
        "must be 'function'",
    ),
    "call without a name": (
        [{"role": "assistant", "tool_calls": [CALL | {"function": {"name": "", "arguments": ""}}]}],
        "messages[0].tool_calls[0].function.name",
        "is empty",
    ),
    "arguments as an object": (
        [{"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": {}}}]}],
        "messages[0].tool_calls[0].function.arguments",
        "must be a string, not an object",
    ),
}


@pytest.mark.parametrize(("messages", "param", "problem"), MESSAGES.values(), ids=MESSAGES.keys())
def test_wrong_message_is_named(messages: Any, param: str, problem: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parsed(messages=messages)
    assert caught.value.param == param
    assert problem in caught.value.problem
    assert len(str(caught.value)) < 300


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}


@pytest.mark.parametrize(
    ("fields", "kind", "source"),
    [
        pytest.param({"response_format": {"type": "json_object"}}, "json_schema", {"type": "object"}, id="json_object"),
        pytest.param(
            {"response_format": {"type": "json_object", "schema": {"type": "array"}}},
            "json_schema",
            {"type": "array"},
            id="json_object with a schema",
        ),
        pytest.param(
            {"response_format": {"type": "json_schema", "json_schema": {"name": "any"}}},
            "json_schema",
            True,
            id="json_schema without a schema",
        ),
        pytest.param(
            {"response_format": schema_format({"properties": {"b": {}, "a": {}}})},
            "json_schema",
            {"properties": {"b": {}, "a": {}}},
            id="json_schema",
        ),
        pytest.param({"choice": ["ü", "no", "ü"]}, "choice", ["ü", "no"], id="choice"),
    ],
)
def test_shape_in_json_becomes_a_constraint(fields: dict[str, Any], kind: str, source: Any) -> None:
    constraint = parsed(**fields).request.constraint
    assert constraint is not None
    assert constraint.kind == kind
    assert json.loads(constraint.source) == source
    if isinstance(source, dict) and "properties" in source:
        assert list(json.loads(constraint.source)["properties"]) == ["b", "a"]  # the order is the answer's


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"response_format": {"type": "text"}}, None, id="text"),
        pytest.param({"regex": "[0-9]+"}, Constraint("regex", "[0-9]+"), id="regex"),
        pytest.param({"grammar": 'root ::= "a"'}, Constraint("gbnf", 'root ::= "a"'), id="GBNF"),
        pytest.param({"grammar": 'start: "a"'}, Constraint("lark", 'start: "a"'), id="Lark"),
        pytest.param(
            {"response_format": {"type": "text"}, "regex": "a"}, Constraint("regex", "a"), id="text beside a regex"
        ),
    ],
)
def test_shape_in_another_language_becomes_a_constraint(fields: dict[str, Any], expected: Constraint | None) -> None:
    assert parsed(**fields).request.constraint == expected


def test_tools_arrive() -> None:
    request = parsed(tools=[TOOL, {"type": "function", "function": {"name": "mcp.g-1/x", "strict": True}}]).request
    assert request.tools == (
        Tool(name="f", description="d", parameters={"type": "object"}),
        Tool(name="mcp.g-1/x", parameters={"type": "object", "properties": {}, "additionalProperties": False}),
    )
    assert (request.tool_choice, request.forced_tool, request.parallel_tool_calls) == ("auto", None, True)


def test_tool_without_parameters_takes_none() -> None:
    from llguidance import LLMatcher, LLTokenizer

    (tool,) = parsed(tools=[{"type": "function", "function": {"name": "now"}}]).request.tools
    for arguments, is_allowed in (("{}", True), ('{"zone": 1}', False)):
        matcher = LLMatcher(LLTokenizer("byte"), call_grammar(HERMES, [tool], 1, tokens={}), log_level=0)
        call = f'<tool_call>\n{{"name": "now", "arguments": {arguments}}}\n</tool_call>'
        assert matcher.consume_tokens(list(call.encode())) is is_allowed


_LAST_SEED = 2**32 - 2


@pytest.mark.parametrize(
    ("seed", "expected"),
    [(0, 0), (_LAST_SEED, _LAST_SEED), (2**32 - 1, 0), (-1, _LAST_SEED), (2**53, 2**53 % (2**32 - 1)), (7.0, 7)],
)
def test_seed_of_64_bits_is_folded(seed: float, expected: int) -> None:
    assert parsed(seed=seed).request.sampling.seed == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ("auto", None)),
        ("none", ("none", None)),
        ("required", ("required", None)),
        ({"type": "function", "function": {"name": "f"}}, ("required", "f")),
    ],
    ids=["auto", "none", "required", "named"],
)
def test_tool_choice_arrives(choice: Any, expected: tuple[str, str | None]) -> None:
    request = parsed(tools=[TOOL], tool_choice=choice).request
    assert (request.tool_choice, request.forced_tool) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        ({"chat_template_kwargs": {"enable_thinking": False, "a": [1]}}, {"enable_thinking": False, "a": [1]}),
        (
            {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
            {"reasoning_effort": "none", "enable_thinking": True},
        ),
        ({}, {}),
    ],
    ids=["effort", "no effort", "own options", "own options go before", "neither"],
)
def test_template_options_arrive(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert parsed(**fields).request.template_options == expected


def test_openais_own_fields_are_no_news_and_others_are_reported() -> None:
    ignored = {"metadata": {}, "store": True, "service_tier": "auto", "prompt_cache_key": "k", "function_call": None}
    messages = [
        {"role": "user", "content": "hi", "annotations": []},
        {"role": "user", "content": "a", "annotations": 1},
    ]
    call = parsed(messages=messages, temprature=1, **ignored, modalities=["text"])
    assert call.unknown == ("temprature", "messages[].annotations")


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_offered(mode: str) -> None:
    others = [{"type": "function", "function": {"name": name}} for name in ("g", "h")]
    request = parsed(tools=[TOOL, *others], tool_choice=allowed(mode, "h", "f")).request
    assert ([tool.name for tool in request.tools], request.tool_choice) == (["f", "h"], mode)
    assert request.forced_tool is None


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "empty model": ({"model": " "}, "model", "is empty"),
    "null model": ({"model": None}, "model", "is required"),
    "temperature as a string": ({"temperature": "0.8"}, "temperature", "must be a number, not a string"),
    "temperature out of range": ({"temperature": -0.1}, "temperature", "out of range"),
    "half a token": ({"max_tokens": 1.5}, "max_tokens", "must be a whole number"),
    "huge integer": ({"max_tokens": 1.0e300}, "max_tokens", "out of range"),
    "no answers": ({"n": 0}, "n", "from 1 to 128"),
    "boolean seed": ({"seed": True}, "seed", "must be a number, not a boolean"),
    "penalty": ({"presence_penalty": 2.1}, "presence_penalty", "from -2 to 2"),
    "seed of more than 64 bits": ({"seed": 2**63}, "seed", "is out of range: from -9223372036854775808"),
    "stop as a number": ({"stop": 3}, "stop", "must be a string or a list"),
    "stop holding a number": ({"stop": ["a", 3]}, "stop[1]", "must be a string"),
    "empty stop": ({"stop": [""]}, "stop", "an empty string"),
    "17 stops": ({"stop": [str(number) for number in range(17)]}, "stop", "at most 16"),
    "bias of a word": ({"logit_bias": {"foo": 1}}, "logit_bias", "'foo' is not a token id"),
    "bias of a huge token": ({"logit_bias": {"9" * 30: 1}}, "logit_bias", "is not a token id"),
    "bias of digits without end": ({"logit_bias": {"9" * 9999: 1}}, "logit_bias", "is not a token id"),
    "bias too strong": ({"logit_bias": {"5": 101}}, "logit_bias['5']", "from -100"),
    "bias as a list": ({"logit_bias": [[5, 1]]}, "logit_bias", "must be an object, not a list"),
    "logprobs as a number": ({"logprobs": 1}, "logprobs", "must be true or false"),
    "rivals alone": ({"top_logprobs": 2}, "top_logprobs", "needs logprobs: true"),
    "too many rivals": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
    "stream as a word": ({"stream": "yes"}, "stream", "must be true or false, not a string"),
    "options without a stream": ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true only"),
    "usage as a number": (
        {"stream": True, "stream_options": {"include_usage": 1}},
        "stream_options.include_usage",
        "must be true or false",
    ),
    "format as a word": ({"response_format": "json_object"}, "response_format", "must be an object, not a string"),
    "unknown format": ({"response_format": {"type": "xml"}}, "response_format.type", "'xml' is not one of text"),
    "no schema": ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "is required"),
    "schema as text": (
        {"response_format": schema_format("{}")},
        "response_format.json_schema.schema",
        "must be true or false or an object",
    ),
    "deep schema": (
        {"response_format": schema_format({"enum": nested(300)})},
        "response_format.json_schema.schema",
        "nested too deeply",
    ),
    "two shapes": ({"regex": "a", "choice": ["a"]}, "choice", "goes without regex"),
    "format and grammar": (
        {"response_format": {"type": "json_object"}, "grammar": "start: /a/"},
        "grammar",
        "goes without response_format",
    ),
    "no choice": ({"choice": []}, "choice", "must be a list of texts"),
    "empty choice": ({"choice": ["a", ""]}, "choice", "none of them empty"),
    "tool of another type": ({"tools": [{"type": "web", "function": {"name": "f"}}]}, "tools[0].type", "'function'"),
    "tool without a function": ({"tools": [{"type": "function"}]}, "tools[0].function", "is required"),
    "tool without a name": ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "is required"),
    "tool of a strange name": (
        {"tools": [TOOL, {"type": "function", "function": {"name": "a b"}}]},
        "tools[1].function.name",
        "'a b' is no name",
    ),
    "two tools of one name": ({"tools": [TOOL, TOOL]}, "tools", "same name"),
    "parameters as a list": (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
        "tools[0].function.parameters",
        "must be an object",
    ),
    "unknown choice": ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "'any' is not one of auto"),
    "choice of a missing tool": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
        "no tool 'g'",
    ),
    "choice of another type": (
        {"tools": [TOOL], "tool_choice": {"type": "web"}},
        "tool_choice.type",
        "must be 'function'",
    ),
    "choice of a custom tool": (
        {"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
        "tool_choice.type",
        "custom tools are not supported",
    ),
    "no allowed tools": (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}},
        "tool_choice.allowed_tools",
        "is required",
    ),
    "mode of the allowed tools": (
        {"tools": [TOOL], "tool_choice": allowed("none", "f")},
        "tool_choice.allowed_tools.mode",
        "is not one of auto, required",
    ),
    "allowed tool that is missing": (
        {"tools": [TOOL], "tool_choice": allowed("auto", "f", "g")},
        "tool_choice.allowed_tools.tools[1].function.name",
        "no tool 'g'",
    ),
    "required of no allowed tools": (
        {"tools": [TOOL], "tool_choice": allowed("required")},
        "tool_choice",
        "there are no tools",
    ),
    "custom tool": (
        {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
        "tools[0].type",
        "custom tools are not supported",
    ),
    "choice of nothing": (
        {"tools": [TOOL], "tool_choice": {"type": "function"}},
        "tool_choice.function",
        "is required",
    ),
    "required without tools": ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
    "functions": ({"functions": []}, "functions", "use tools"),
    "function_call": ({"function_call": "auto"}, "function_call", "use tool_choice"),
    "web search": ({"web_search_options": {}}, "web_search_options", "leave it out"),
    "audio": ({"modalities": ["text", "audio"]}, "modalities[1]", "'audio' is not supported"),
    "unknown effort": ({"reasoning_effort": "huge"}, "reasoning_effort", "'huge' is not one of none"),
    "options as a list": ({"chat_template_kwargs": []}, "chat_template_kwargs", "must be an object"),
    "deep options": ({"chat_template_kwargs": {"a": nested(300)}}, "chat_template_kwargs", "nested too deeply"),
    "no duration": ({"keep_alive": "soon"}, "keep_alive", "'soon'"),
    "no time": ({"timeout": 0}, "timeout", "seconds above 0"),
    "all the time": ({"timeout": 1e300}, "timeout", "at most 1e9"),
}


@pytest.mark.parametrize(("fields", "param", "problem"), WRONG.values(), ids=WRONG.keys())
def test_wrong_field_is_named(fields: dict[str, Any], param: str, problem: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parsed(**fields)
    assert caught.value.param == param
    assert problem in caught.value.problem
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"max_tokens": %b, ' % (b"9" * 4300),
        b'{"timeout": %b, ' % (b"9" * 4300),
        b'{"keep_alive": %b, ' % (b"9" * 4300),
    ],
    ids=["max_tokens", "timeout", "keep_alive"],
)
def test_integers_as_long_as_python_reads_are_one_line(text: bytes) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_chat(text + chat()[1:])
    assert len(str(caught.value)) < 300


def test_integer_of_a_schema_beyond_64_bits_is_refused() -> None:
    body = b'{"response_format": {"type": "json_object", "schema": {"const": %b}}, ' % (b"9" * 30)
    with pytest.raises(ParameterError, match="64 bits"):
        parse_chat(body + chat()[1:])


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_missing_field_is_named(missing: str) -> None:
    body = msgspec.json.decode(chat())
    del body[missing]
    with pytest.raises(ParameterError, match=f"{missing}: is required"):
        parse_chat(msgspec.json.encode(body))


def test_malformed_body_is_no_parameter_error() -> None:
    with pytest.raises(InvalidRequestError, match="not valid JSON") as caught:
        parse_chat(b"{'model': 'a'}")
    assert not isinstance(caught.value, ParameterError)


def test_body_to_be_counted_is_a_chat() -> None:
    assert parse_input_tokens(chat(tools=[TOOL])) == parsed(tools=[TOOL])
