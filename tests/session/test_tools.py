"""Tools in the Python API: options to requests, chunks to responses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest

from nbllm.chat.callformats import HERMES
from nbllm.chat.callgrammar import call_grammar
from nbllm.core import Chunk, GenerateRequest, Message, Tool, ToolCall, ToolCallDelta
from nbllm.engine.local import LocalEngine
from nbllm.errors import ParameterError
from nbllm.session.model import Model
from nbllm.session.requests import messages
from nbllm.session.response import Response
from nbllm.testing import ScriptedEngine


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


CALL = ToolCall("call_1", "add", '{"a": 1, "b": 2}')
PIECES: list[str | Chunk | BaseException] = [
    "Let me see.",
    Chunk(tool_calls=(ToolCallDelta(0, "call_1", "add"),)),
    Chunk(tool_calls=(ToolCallDelta(0, arguments='{"a": 1, '), ToolCallDelta(1, "call_2", "add"))),
    Chunk(tool_calls=(ToolCallDelta(0, arguments='"b": 2}'), ToolCallDelta(1, arguments="{}"))),
    Chunk(finish_reason="tool_calls"),
]


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


def asked(engine: ScriptedEngine, **options: Any) -> GenerateRequest:
    engine.enqueue("ok")
    Model(engine).chat("hi", **options)
    request = engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    return request


def test_calls_are_in_the_response(engine: ScriptedEngine) -> None:
    engine.enqueue(PIECES)
    response = Model(engine).chat("What is 1 + 2?", tools=[add])
    assert response.tool_calls == (CALL, ToolCall("call_2", "add", "{}"))
    assert (response.text, response.finish_reason) == ("Let me see.", "tool_calls")
    assert response.message == Message("assistant", "Let me see.", tool_calls=response.tool_calls)


def test_pieces_of_calls_are_streamed(engine: ScriptedEngine) -> None:
    engine.enqueue(PIECES)
    chunks = list(Model(engine).stream("What is 1 + 2?", tools=[add]))
    assert [len(chunk.tool_calls) for chunk in chunks] == [0, 1, 2, 2, 0]


def test_options_reach_the_request(engine: ScriptedEngine) -> None:
    request = asked(engine, tools=[add], tool_choice=add, parallel_tool_calls=False)
    (tool,) = request.tools
    assert (tool.name, tool.description) == ("add", "Add two numbers.")
    assert (request.tool_choice, request.forced_tool, request.parallel_tool_calls) == ("required", "add", False)
    assert asked(engine, tools=[Tool(name="f")], tool_choice="none").tool_choice == "none"
    assert asked(engine).tools == ()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tools": add}, "tools: must be a list"),
        ({"tools": [add, add]}, "tools: two of them have the same name"),
        ({"tool_choice": "required"}, "tool_choice: asks for a call, and there are no tools"),
        ({"tools": [add], "tool_choice": "sub"}, "tool_choice: there is no tool 'sub'"),
        ({"tools": [add], "parallel_tool_calls": "no"}, "parallel_tool_calls: must be True or False"),
        ({"tool": [add]}, "tool: is not an option; did you mean tools"),
    ],
    ids=["no list", "twice", "no tools", "unknown", "no switch", "misspelt"],
)
def test_options_that_make_no_sense_are_refused(engine: ScriptedEngine, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ParameterError, match=f"^{problem}"):
        Model(engine).chat("hi", **options)


def test_raw_completion_takes_no_tools(engine: ScriptedEngine) -> None:
    with pytest.raises(ParameterError, match="use chat"):
        Model(engine).complete("hi", tools=[add])


# ---- messages

_FUNCTION = {"name": "add", "arguments": CALL.arguments}


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}], ids=["left out", "null", "empty"])
def test_calls_and_results_are_messages(content: dict[str, Any]) -> None:
    asks = {"role": "assistant", **content, "tool_calls": [{"id": "call_1", "type": "function", "function": _FUNCTION}]}
    gives = {"role": "tool", "tool_call_id": "call_1", "content": "3"}
    assert messages([{"role": "user", "content": "?"}, asks, gives])[1:] == (
        Message("assistant", "", tool_calls=(CALL,)),
        Message("tool", "3", tool_call_id="call_1"),
    )


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        ("add", "must be a list"),
        (["add"], "a call needs 'id' and 'function'"),
        ([{"id": "x"}], "a call needs 'id' and 'function'"),
        ([{"id": "x", "function": {"name": "add", "arguments": {}}}], "a JSON object as text"),
        ([{"function": _FUNCTION}], "all of them strings"),
    ],
    ids=["text", "texts", "no function", "object", "no id"],
)
def test_calls_that_are_none_are_refused(calls: Any, problem: str) -> None:
    with pytest.raises(ParameterError, match=f"^tool_calls: .*{problem}"):
        messages([{"role": "assistant", "content": "x", "tool_calls": calls}])


def test_message_without_content_needs_calls() -> None:
    with pytest.raises(ParameterError, match="a message needs 'content'"):
        messages([{"role": "assistant", "tool_calls": []}])


# ---- what is shown


def test_calls_are_shown_as_a_block_of_json() -> None:
    markdown = Response(text="So:", tool_calls=(CALL,))._repr_markdown_()
    before, _, block = markdown.partition("```json\n")
    assert before.strip() == "So:"
    assert json.loads(block.partition("\n```")[0]) == {"name": "add", "arguments": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "```\n<img src=x onerror=alert(1)>",
        "\n```\n\n<script>alert(1)</script>",
        "</code></pre><b>",
        '{"a": "```\\n<b>"}',
    ],
    ids=["fence", "fence on a line", "tags", "in a value"],
)
def test_nothing_gets_out_of_the_block(text: str) -> None:
    markdown = Response(text="", tool_calls=(ToolCall("i", text, text),))._repr_markdown_()
    lines = markdown.strip().splitlines()
    fence = lines[0].removesuffix("json")
    assert set(fence) == {"`"}
    assert [line for line in lines if line.lstrip().startswith(fence)] == [lines[0], lines[-1]]


def test_calls_are_shown_in_a_terminal() -> None:
    class _Printer:
        shown = ""

        def text(self, text: str) -> None:
            self.shown += text

    printer = _Printer()
    Response(text="", tool_calls=(ToolCall("i", "f\x1b[2J", "cut"),))._repr_pretty_(printer, False)
    assert json.loads(printer.shown) == {"name": "f\x1b[2J", "arguments": "cut"}
    assert "\x1b" not in printer.shown


# ---- a real model

_NUMBER = {"type": "integer", "minimum": 0, "maximum": 9}
DIGIT = Tool(name="digit", parameters={"type": "object", "properties": {"a": _NUMBER}, "required": ["a"]})
LETTER = Tool(name="letter", parameters={"type": "object", "properties": {"b": {"enum": ["x"]}}, "required": ["b"]})
_FITTING: dict[str, list[Any]] = {"digit": [{"a": digit} for digit in range(10)], "letter": [{"b": "x"}]}


@pytest.mark.model
def test_small_model_gives_a_valid_call_every_time(smollm2: Model) -> None:
    import jsonschema

    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 30},
            "unit": {"enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    }
    tools = [Tool(name="get_weather", parameters=schema), DIGIT]
    options: dict[str, Any] = {"n": 20, "seed": 0, "temperature": 1, "max_tokens": 120}
    response = smollm2.chat("How is it in Rome?", tools=tools, tool_choice="get_weather", **options)
    assert len(response.choices) == 20
    for choice in response.choices:
        (call,) = choice.tool_calls
        assert (call.name, choice.finish_reason, choice.text) == ("get_weather", "tool_calls", "")
        jsonschema.validate(json.loads(call.arguments), schema)


@pytest.mark.model
def test_small_model_chooses_among_tools(smollm2: Model) -> None:
    options: dict[str, Any] = {"parallel_tool_calls": False, "n": 2, "seed": 0, "max_tokens": 120}
    for choice in smollm2.chat("hi", tools=[DIGIT, LETTER], tool_choice="required", **options).choices:
        (call,) = choice.tool_calls
        assert json.loads(call.arguments) in _FITTING[call.name]


@pytest.mark.model
def test_mark_that_is_a_control_token_of_a_real_vocabulary_is_forced(smollm2: Model) -> None:
    from nbllm.chat import constraints

    backend = cast("LocalEngine", smollm2.engine)._backend
    (token,) = backend.tokenize("<file_sep>", add_special=False, parse_special=True)
    form = replace(HERMES, opening="<file_sep>")
    matcher = backend.make_matcher(
        call_grammar(form, [DIGIT], 1, tokens={"<file_sep>": token}), constraints.parser_limits()
    )
    assert matcher.allows(token)
    assert not matcher.allows(backend.tokenize("<", add_special=False, parse_special=False)[0])
    rest = backend.tokenize(
        '\n{"name": "digit", "arguments": {"a": 1}}\n</tool_call>', add_special=False, parse_special=False
    )
    assert all(map(matcher.consume, [token, *rest]))
    assert matcher.is_complete
