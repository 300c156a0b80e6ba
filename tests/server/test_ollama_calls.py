"""From Ollama's requests to ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from nbllm.core import Constraint, Message, SamplingParams, ToolCall
from nbllm.core.durations import FOREVER
from nbllm.errors import InvalidRequestError, ParameterError, UnsupportedError
from nbllm.server.ollama.calls import Call, parse_chat, parse_generate
from nbllm.server.ollama.options import UNLIMITED, Room
from nbllm.server.ollama.vectors import VectorCall, parse_embed, parse_embeddings
from nbllm.wire.openai.lora import Switch

_TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def _generate(**more: Any) -> Call:
    return parse_generate(json.dumps({"model": "toy", "prompt": "Hi", **more}).encode())


def _chat(*messages: dict[str, Any], **more: Any) -> Call:
    turns = list(messages) or [{"role": "user", "content": "Hi"}]
    return parse_chat(json.dumps({"model": "toy", "messages": turns, **more}).encode())


def _sampling(**more: Any) -> SamplingParams:
    request = _generate(**more).request
    assert request is not None
    return request.sampling


# ---- options


def test_nothing_said_leaves_it_to_the_model() -> None:
    assert _sampling() == SamplingParams(max_tokens=UNLIMITED)


@pytest.mark.parametrize(
    ("option", "value", "name", "expected"),
    [
        ("temperature", 0.5, "temperature", 0.5),
        ("top_k", 20, "top_k", 20),
        ("top_k", -1, "top_k", 0),
        ("top_p", 0.9, "top_p", 0.9),
        ("min_p", 0.1, "min_p", 0.1),
        ("typical_p", 0.7, "typical_p", 0.7),
        ("repeat_last_n", 33, "repeat_last_n", 33),
        ("repeat_last_n", -1, "repeat_last_n", 2**20),
        ("repeat_penalty", 1.2, "repeat_penalty", 1.2),
        ("presence_penalty", 1.5, "presence_penalty", 1.5),
        ("frequency_penalty", 1.0, "frequency_penalty", 1.0),
        ("num_predict", 7, "max_tokens", 7),
        ("num_predict", 7.0, "max_tokens", 7),
        ("num_predict", -1, "max_tokens", UNLIMITED),
        ("num_predict", 0, "max_tokens", UNLIMITED),
        ("seed", 42, "seed", 42),
        ("seed", -1, "seed", None),
        ("seed", 2**40, "seed", 2**40 % (2**32 - 1)),
        ("stop", ["\n", "user:"], "stop", ("\n", "user:")),
        ("stop", "x", "stop", ("x",)),
    ],
)
def test_option(option: str, value: Any, name: str, expected: Any) -> None:
    assert getattr(_sampling(options={option: value}), name) == expected


@pytest.mark.parametrize(
    ("field", "value", "name", "expected"),
    [
        ("temperature", 0.7, "temperature", 0.7),
        ("top_p", 0.9, "top_p", 0.9),
        ("top_k", 4, "top_k", 4),
        ("seed", 5, "seed", 5),
        ("stop", ["a"], "stop", ("a",)),
        ("max_tokens", 100, "max_tokens", 100),
    ],
)
def test_documented_top_level_field(field: str, value: Any, name: str, expected: Any) -> None:
    assert getattr(_sampling(**{field: value}), name) == expected


def test_options_win_over_the_top_level() -> None:
    both = _sampling(temperature=1, max_tokens=100, options={"temperature": 0.25, "num_predict": 3, "top_p": None})
    assert (both.temperature, both.max_tokens, both.top_p) == (0.25, 3, None)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"num_predict": "x"}}, "options.num_predict"),
        ({"options": {"num_predict": 1e300}}, "options.num_predict"),
        ({"options": {"seed": True}}, "options.seed"),
        ({"options": {"top_p": 5}}, "options.top_p"),
        ({"options": {"stop": [1]}}, "options.stop"),
        ({"options": {"stop": ["a"] * 65}}, "options.stop"),
        ({"options": {"num_ctx": 0}}, "options.num_ctx"),
        ({"options": {"num_keep": "x"}}, "options.num_keep"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"format": "yaml"}, "format"),
        ({"format": True}, "format"),
        ({"think": "hard"}, "think"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"context": [1, -1]}, "context[1]"),
    ],
)
def test_what_is_wrong_is_named_as_the_client_does(more: dict[str, Any], param: str) -> None:
    with pytest.raises(ParameterError) as failure:
        _generate(**more)
    assert failure.value.param == param


def test_hints_change_nothing_and_are_not_logged() -> None:
    call = _generate(
        options={"num_gpu": 99, "num_thread": 2, "use_mmap": False, "num_batch": 1, "draft_num_predict": 4}
    )
    assert call.unknown == ()
    assert call.request == _generate().request


def test_unknown_options_are_logged() -> None:
    call = _generate(options={"mirostat": 2, "temprature": 1, "a\nb": 1}, prompts="x")
    assert call.unknown == ("prompts", "options.mirostat", "options.temprature", "options.a\\nb")


@pytest.mark.parametrize("messages", [5, [1], [None], {"a": 1}, "x", True], ids=repr)
@pytest.mark.parametrize("parse", [parse_generate, parse_embed, parse_embeddings])
def test_messages_mean_nothing_but_in_a_chat(parse: Callable[[bytes], Call | VectorCall], messages: Any) -> None:
    call = parse(json.dumps({"model": "m", "prompt": "hi", "input": "hi", "messages": messages}).encode())
    assert "messages" in call.unknown


@pytest.mark.parametrize("messages", [None, []])
def test_chat_without_messages_has_none_that_are_odd(messages: Any) -> None:
    assert parse_chat(json.dumps({"model": "m", "messages": messages, "modle": 1}).encode()).unknown == ("modle",)


def test_unknown_keys_of_a_chat_are_logged_up_to_a_limit() -> None:
    turn = {"role": "user", "content": "Hi"}
    call = _chat({**turn, "tokens": 1}, {**turn, "tokens": 2}, modle=1, options={"mirostat": 2})
    assert call.unknown == ("modle", "messages[].tokens", "options.mirostat")
    many = {str(number): 1 for number in range(15)}
    assert len(_chat({**turn, **many}, **many).unknown) == 20


def test_room() -> None:
    assert _generate().room == Room(None, 1, True)
    assert _generate(options={"num_ctx": 4096, "num_keep": 5}, truncate=False).room == Room(4096, 5, False)


def test_logprobs() -> None:
    assert _sampling(logprobs=True, top_logprobs=3).top_logprobs == 3
    assert not _sampling(top_logprobs=3).logprobs


# ---- generate


def test_prompt_is_a_chat_of_one_turn() -> None:
    call = _generate(system="Be brief.")
    assert call.request is not None
    assert call.request.messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert (call.stream, call.gives_context, call.keep_alive) == (True, True, None)


def test_raw_prompt_is_taken_as_it_is() -> None:
    call = _generate(raw=True, stream=False)
    assert call.request is not None
    assert (call.request.text, call.request.messages, call.request.parse_special) == ("Hi", None, True)
    assert (call.stream, call.gives_context) == (False, False)


@pytest.mark.parametrize("more", [{"template": "{{ .Prompt }}"}, {"system": "x"}, {"context": [1]}])
def test_raw_goes_alone(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="raw mode does not support template, system, or context"):
        _generate(raw=True, **more)


def test_suffix_is_for_infill() -> None:
    call = _generate(suffix="end")
    assert call.request is not None
    assert (call.request.text, call.request.suffix, call.gives_context) == ("Hi", "end", False)
    with pytest.raises(InvalidRequestError, match="suffix goes without"):
        _generate(suffix="end", system="x")


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (None, None),
        ("", None),
        ("json", Constraint("json_schema", '{"type":"object"}')),
        ({"type": "integer"}, Constraint("json_schema", '{"type":"integer"}')),
    ],
)
def test_format(format: Any, expected: Constraint | None) -> None:
    call = _generate(format=format)
    assert call.request is not None
    assert call.request.constraint == expected


@pytest.mark.parametrize(
    ("think", "options", "wanted"),
    [
        (None, {}, None),
        (True, {"enable_thinking": True}, True),
        (False, {"enable_thinking": False}, False),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}, True),
    ],
)
def test_think(think: Any, options: dict[str, Any], wanted: bool | None) -> None:
    for call in (_generate(think=think), _chat(think=think)):
        assert call.request is not None
        assert (call.request.template_options, call.think) == (options, wanted)


@pytest.mark.parametrize(
    "template", ["{{ .Prompt }}", "{{- if .System }}x{{ end }}", "{{ range $i, $_ := .Messages }}{{ end }}"]
)
def test_go_template_is_recognised(template: str) -> None:
    assert "Go's language" in _generate(template=template).notes[0]


@pytest.mark.parametrize("template", ["{% for m in messages %}{{ m }}{% endfor %}", "{{ messages[0].content }}", "x"])
def test_other_template_takes_the_place_of_the_models(template: str) -> None:
    call = _generate(template=template)
    assert call.request is not None
    assert (call.request.template, call.notes) == (template, ())


def test_adapters_are_chosen_by_number() -> None:
    lora = [{"id": 1, "scale": 0.5}, {"id": 0}]
    for call in (_generate(lora=lora), _chat(lora=lora)):
        assert call.lora == (Switch(1, 0.5), Switch(0, None))
    assert _generate().lora is None


@pytest.mark.parametrize(
    ("given", "assumed"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"max_tokens": 5}, False, id="top level"),
        pytest.param({"options": {"num_predict": -1}}, False, id="no limit"),
        pytest.param({"options": {"seed": 1}}, True, id="another option"),
    ],
)
def test_limit_that_nobody_has_asked_for_is_marked(given: dict[str, Any], assumed: bool) -> None:
    assert _generate(**given).assumed == (("max_tokens",) if assumed else ())


@pytest.mark.parametrize(
    ("keep_alive", "seconds"), [("5m", 300.0), (0, 0.0), ("0", 0.0), (-1, FOREVER), ("1h30m", 5400.0), (1.5, 1.5)]
)
def test_keep_alive(keep_alive: Any, seconds: float) -> None:
    call = _generate(keep_alive=keep_alive, prompt="")
    assert call.keep_alive == seconds
    assert call.request is None
    assert call.unloads is (seconds == 0)


@pytest.mark.parametrize("more", [{"prompt": ""}, {"prompt": None}, {"prompt": "", "raw": True}])
def test_empty_prompt_loads(more: dict[str, Any]) -> None:
    call = _generate(**more)
    assert call.request is None
    assert not call.unloads


@pytest.mark.parametrize("ask", [_generate, _chat])
def test_images_are_missing(ask: Any) -> None:
    assert ask(images=[]).request is not None
    seen = (
        {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]} if ask is _chat else {"images": ["aGk="]}
    )
    with pytest.raises(UnsupportedError, match="images: this server cannot look at images yet"):
        ask(**seen)


# ---- chat


def test_chat() -> None:
    call = _chat(tools=[_TOOL])
    assert call.request is not None
    assert [tool.name for tool in call.request.tools] == ["add"]
    assert not call.request.continue_final
    assert not call.gives_context


def test_chat_without_messages_loads() -> None:
    assert parse_chat(b'{"model": "toy", "messages": []}').request is None
    assert parse_chat(b'{"model": "toy"}').request is None


def test_last_message_of_an_assistant_is_gone_on_with() -> None:
    call = _chat({"role": "user", "content": "Count."}, {"role": "assistant", "content": "1, 2,"})
    assert call.request is not None
    assert call.request.continue_final


def _calls(*names: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": {"a": 1}}} for name in names]}


def test_results_find_their_calls() -> None:
    call = _chat(
        _calls("add", "sub", "add"),
        {"role": "tool", "content": "sub", "tool_name": "sub"},
        {"role": "tool", "content": "add 1", "tool_name": "add"},
        {"role": "tool", "content": "add 2"},
        {"role": "tool", "content": "of none", "tool_name": "mul"},
    )
    assert call.request is not None
    first, *results = call.request.messages or ()
    assert first.tool_calls[0] == ToolCall("call_0_0", "add", '{"a":1}')
    assert [turn.tool_call_id for turn in results] == ["call_0_1", "call_0_0", "call_0_2", "call_0_0"]
    assert results[0].name == "sub"


def test_results_may_say_their_calls() -> None:
    call = _chat(
        {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "1", "tool_call_id": "x"},
    )
    assert call.request is not None
    assert (call.request.messages or ())[1].tool_call_id == "x"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "king", "content": "x"}, "messages[0].role"),
        ({"role": "user", "content": "x", **{"tool_calls": [{"function": {"name": "f"}}]}}, "messages[0].tool_calls"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": ""}}]},
            "messages[0].tool_calls[0].function.name",
        ),
    ],
)
def test_message_that_is_wrong(message: dict[str, Any], param: str) -> None:
    with pytest.raises(ParameterError) as failure:
        _chat(message)
    assert failure.value.param == param


def test_thinking_of_earlier_turns_is_kept() -> None:
    call = _chat({"role": "assistant", "content": "4", "thinking": "2+2"}, {"role": "user", "content": "Why?"})
    assert call.request is not None
    assert (call.request.messages or ())[0].reasoning == "2+2"


# ---- vectors


def test_embed() -> None:
    call = parse_embed(b'{"model": "toy", "input": ["a", "b"], "dimensions": 4, "truncate": false, "keep_alive": 0}')
    assert (call.texts, call.dimensions, call.room.truncates, call.keep_alive) == (("a", "b"), 4, False, 0.0)
    assert call.unit


@pytest.mark.parametrize("input", ['""', "[]", "null"])
def test_embed_without_texts_loads(input: str) -> None:
    assert parse_embed(b'{"model": "toy", "input": %b}' % input.encode()).texts == ()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": [1]}, "input[0]"),
    ],
)
def test_embed_that_is_wrong(body: dict[str, Any], param: str) -> None:
    with pytest.raises(ParameterError) as failure:
        parse_embed(json.dumps({"model": "toy", **body}).encode())
    assert failure.value.param == param


def test_old_embeddings() -> None:
    call = parse_embeddings(b'{"model": "toy", "prompt": "a"}')
    assert (call.texts, call.unit) == (("a",), False)
    assert parse_embeddings(b'{"model": "toy"}').texts == ()
