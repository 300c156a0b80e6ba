"""What an answer that has to be a call may be, in each family's form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nbllm.chat.callformats import HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, CallFormat, format_of
from nbllm.chat.callgrammar import call_grammar
from nbllm.core import Tool
from nbllm.errors import ConstraintError

CITY = {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}, "required": ["city"]}
WEATHER = Tool(name="weather", parameters={**CITY, "$defs": {"City": {"type": "string", "maxLength": 9}}})
QUOTED = Tool(name='a"b\\')
_FORMS = {
    "hermes": (HERMES, "<tool_call>\n{}\n</tool_call>", "\n<tool_call>\n{}\n</tool_call>", ""),
    "mistral": (MISTRAL, "[TOOL_CALLS][{}", ", {}", "]"),
    "llama": (LLAMA, "{}", ";{}", ""),
}
by_form = pytest.mark.parametrize("name", list(_FORMS))


def accepts(grammar: str, text: str) -> bool:
    from llguidance import LLMatcher, LLTokenizer

    matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
    return bool(matcher.consume_tokens(list(text.encode())) and matcher.is_accepting())


def answer(name: str, *calls: tuple[str, dict[str, Any]]) -> str:
    form, first, further, end = _FORMS[name]
    bodies = [json.dumps({"name": called, form.arguments: value}) for called, value in calls]
    return "".join([(further if place else first).replace("{}", body) for place, body in enumerate(bodies)]) + end


@by_form
def test_calls_of_known_tools_with_fitting_arguments_are_allowed(name: str) -> None:
    grammar = call_grammar(_FORMS[name][0], [WEATHER, QUOTED], 3, tokens={})
    rome = ("weather", {"city": "Rome"})
    assert accepts(grammar, answer(name, rome))
    assert accepts(grammar, answer(name, rome, (QUOTED.name, {"x": [1]}), rome))


@by_form
@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([("other", {})], id="unknown tool"),
        pytest.param([("weather", {})], id="argument missing"),
        pytest.param([("weather", {"city": 1})], id="wrong type"),
        pytest.param([("weather", {"city": "a city with a long name"})], id="behind a reference"),
        pytest.param([("weather", {"city": "Rome", "more": 1})], id="argument that is not described"),
        pytest.param([("weather", {"city": "Rome"})] * 3, id="too many"),
    ],
)
def test_other_calls_are_not_allowed(name: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    grammar = call_grammar(_FORMS[name][0], [WEATHER], 2, tokens={})
    assert not accepts(grammar, answer(name, *calls))


@by_form
def test_nothing_but_calls_is_allowed(name: str) -> None:
    grammar = call_grammar(_FORMS[name][0], [WEATHER], 2, tokens={})
    assert not accepts(grammar, "")
    assert not accepts(grammar, "Well, " + answer(name, ("weather", {"city": "Rome"})))


@by_form
def test_grammar_goes_on_after_an_opening(name: str) -> None:
    form = _FORMS[name][0]
    grammar = call_grammar(form, [WEATHER], 2, tokens={}, is_opened=True)
    assert accepts(grammar, answer(name, ("weather", {"city": "Rome"})).removeprefix(form.opening))


def test_named_form() -> None:
    grammar = call_grammar(MISTRAL_NAMED, [WEATHER], 2, tokens={})
    one = '[TOOL_CALLS]weather[ARGS]{"city": "Rome"}'
    assert accepts(grammar, one + one)
    assert not accepts(grammar, one * 3)


def test_mark_that_is_a_token_is_written_as_one() -> None:
    grammar = call_grammar(HERMES, [WEATHER], 1, tokens={"<tool_call>": 7})
    body = '\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert accepts(grammar, "\x07" + body)
    assert not accepts(grammar, "<tool_call>" + body)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)y"}}}, "not supported"),
        ({"type": "array"}, "must be of the type 'object'"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "not supported"),
    ],
    ids=["pattern", "array", "impossible"],
)
def test_schema_that_cannot_be_kept_names_its_tool(schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConstraintError, match=f"^tool 'bad': .*{problem}"):
        call_grammar(HERMES, [WEATHER, Tool(name="bad", parameters=schema)], 1, tokens={})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
        {"properties": {"a": {}}, "patternProperties": {"^b": {"type": "integer"}}},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {"type": "integer"}}}]},
    ],
    ids=["additional", "pattern", "all of"],
)
def test_object_that_says_more_than_its_properties_stays_open(schema: dict[str, Any]) -> None:
    grammar = call_grammar(LLAMA, [Tool(name="f", parameters=schema)], 1, tokens={})
    assert accepts(grammar, '{"name": "f", "parameters": {"a": 1, "b": 2}}')


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{{ tools }} [TOOL_CALLS]", MISTRAL),
        ("{{ tools }} [TOOL_CALLS] [ARGS]", MISTRAL_NAMED),
        ("{{ tools }} <tool_call>", HERMES),
        ('{{ tools }} <|python_tag|> {"name": function name, "parameters": ...}', LLAMA),
        ('{{ tools }} {"name": function name, "parameters": ...}', LLAMA),
        ("{{ tools }}", HERMES),
    ],
)
def test_form_is_told_by_the_template(template: str, form: CallFormat) -> None:
    assert format_of(template) == form
