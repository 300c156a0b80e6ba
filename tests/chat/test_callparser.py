"""Calls taken out of an answer: what is one, what is none, and that the cuts do not matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.chat.callformats import HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, CallFormat
from nbllm.chat.callparser import MAX_CALLS, CallParser
from nbllm.core import ToolCall, ToolCallDelta

FORMS = {"hermes": HERMES, "mistral": MISTRAL, "named": MISTRAL_NAMED, "llama": LLAMA}
Result = tuple[str, list[ToolCall]]


def parser(form: CallFormat, most: int = MAX_CALLS, *, trusted: bool = False) -> CallParser:
    return CallParser(form, ("f", "g"), lambda index: f"id{index}", most=most, trusted=trusted)


def parsed(form: CallFormat, pieces: Sequence[str], most: int = MAX_CALLS, *, trusted: bool = False) -> Result:
    one = parser(form, most, trusted=trusted)
    steps = [*map(one.push, pieces), one.finish()]
    return "".join(step.content for step in steps), joined([delta for step in steps for delta in step.calls])


def joined(deltas: Sequence[ToolCallDelta]) -> list[ToolCall]:
    """The calls; the first piece of each has its id and name, and no later one has."""
    calls: list[ToolCall] = []
    for delta in deltas:
        if delta.index == len(calls):
            assert delta.id is not None
            assert delta.name is not None
            calls.append(ToolCall(delta.id, delta.name, delta.arguments))
        else:
            assert (delta.index, delta.id, delta.name) == (len(calls) - 1, None, None)
            calls[-1] = ToolCall(calls[-1].id, calls[-1].name, calls[-1].arguments + delta.arguments)
    return calls


F = ToolCall("id0", "f", '{"a": 1}')
G = ToolCall("id1", "g", "{}")
_F, _G = '{"name": "f", "arguments": {"a": 1}}', '{"name": "g", "arguments": {}}'
_CALLS = [
    pytest.param(HERMES, f"<tool_call>\n{_F}\n</tool_call>", "", [F], id="hermes"),
    pytest.param(HERMES, f"<tool_call>{_F}</tool_call>\n<tool_call>\n{_G}\n</tool_call>", "", [F, G], id="two"),
    pytest.param(HERMES, f"Well. \n\n<tool_call>{_F}</tool_call>\n", "Well.", [F], id="text before"),
    pytest.param(HERMES, f"<tool_call>{_F}</tool_call>\nSo.", "So.", [F], id="text after"),
    pytest.param(HERMES, f"<tool_call>{_F}", "", [F], id="never closed"),
    pytest.param(HERMES, f"<tool_call>{_F}</tool", "", [F], id="closed by half"),
    pytest.param(
        HERMES, '<tool_call>{"arguments":{"a": 1} , "name" :"f"}</tool_call>', "", [F], id="other order and blanks"
    ),
    pytest.param(
        HERMES, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [F], id="arguments as a text"
    ),
    pytest.param(
        HERMES, '<tool_call>{"name": "g"}</tool_call>', "", [ToolCall("id0", "g", "{}")], id="arguments left out"
    ),
    pytest.param(
        HERMES,
        '<tool_call>{"name": "f", "arguments": {"s": "</tool_call> } \\" \\\\"}}</tool_call>',
        "",
        [ToolCall("id0", "f", '{"s": "</tool_call> } \\" \\\\"}')],
        id="closing tag in a text",
    ),
    pytest.param(MISTRAL, f"[TOOL_CALLS][{_F}, {_G}]", "", [F, G], id="mistral"),
    pytest.param(MISTRAL, f"[TOOL_CALLS] [ {_F} ]", "", [F], id="mistral with blanks"),
    pytest.param(MISTRAL_NAMED, '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}', "", [F, G], id="named"),
    pytest.param(MISTRAL_NAMED, '[TOOL_CALLS]f[CALL_ID]x7[ARGS]{"a": 1}', "", [F], id="named with an id"),
    pytest.param(LLAMA, '{"name": "f", "parameters": {"a": 1}}', "", [F], id="llama"),
    pytest.param(LLAMA, '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', "", [F], id="llama with its tag"),
    pytest.param(
        LLAMA,
        '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
        "",
        [F, G],
        id="two of llama",
    ),
]
_NO_CALLS = [
    pytest.param(HERMES, "Just words.\n", id="words"),
    pytest.param(HERMES, "a < b, <tool and <tool_calls", id="almost a tag"),
    pytest.param(HERMES, '<tool_call>\n{"name": "h", "arguments": {}}\n</tool_call>', id="unknown name"),
    pytest.param(HERMES, '<tool_call>{"name": "f", "arguments": {"a": }}</tool_call> x', id="broken"),
    pytest.param(HERMES, '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', id="arguments are a list"),
    pytest.param(HERMES, '<tool_call>{"name": "f", "argu', id="cut off"),
    pytest.param(HERMES, "Use <tool_call> tags, as in <tool_call>…</tool_call>.", id="talk of tags"),
    pytest.param(HERMES, "<tool_call>" + '{"a":' * 5000, id="very deep"),
    pytest.param(HERMES, "  \n<tool_call>", id="opening only"),
    pytest.param(MISTRAL, "[TOOL_CALLS][1, 2]", id="list of numbers"),
    pytest.param(MISTRAL_NAMED, "[TOOL_CALLS]h[ARGS]{}", id="unknown name of a named one"),
    pytest.param(MISTRAL_NAMED, "[TOOL_CALLS]" + "f" * 300, id="a name without an end"),
    pytest.param(LLAMA, ' {"answer": 42}', id="another object"),
    pytest.param(LLAMA, 'As JSON: {"name": "f", "parameters": {}}', id="object further on"),
    pytest.param(LLAMA, "", id="nothing"),
]


@pytest.mark.parametrize(("form", "text", "content", "calls"), _CALLS)
def test_calls_are_taken_out_whatever_the_cuts(
    form: CallFormat, text: str, content: str, calls: list[ToolCall]
) -> None:
    assert parsed(form, [text]) == parsed(form, list(text)) == (content, calls)


@pytest.mark.parametrize(("form", "text"), _NO_CALLS)
def test_what_is_no_call_is_content_whatever_the_cuts(form: CallFormat, text: str) -> None:
    assert parsed(form, [text]) == parsed(form, list(text)) == (text, [])


def test_call_after_one_that_is_none_is_found() -> None:
    wrong = '<tool_call>{"name": "h", "arguments": {}}</tool_call>'
    assert parsed(HERMES, [f"{wrong}<tool_call>{_F}</tool_call>"]) == (wrong, [F])


def test_text_that_cannot_be_a_call_is_not_held_back() -> None:
    one = parser(HERMES)
    assert one.push("a <").content == "a"
    assert one.push("b <tool").content == " <b"
    assert one.push("box").content == " <toolbox"


def test_no_more_calls_are_taken_than_there_may_be() -> None:
    one = parser(HERMES, most=1)
    one.push(f"<tool_call>{_F}")
    assert one.is_full
    assert one.push(f"</tool_call><tool_call>{_G}</tool_call>x") == one.finish() == ("", ())


def test_what_stands_after_an_opening_is_told_while_it_is_held() -> None:
    one = parser(HERMES)
    one.push("so <tool")
    assert one.opened is None
    one.push('_call>\n{"na')
    assert one.opened == '\n{"na'
    one.trust()
    assert one.opened is None


# -- calls that a grammar guarantees

_GUARANTEED = {
    "hermes": f"<tool_call>\n{_F}\n</tool_call>\n<tool_call>\n{_G}\n</tool_call>",
    "mistral": f"[TOOL_CALLS][{_F}, {_G}]",
    "named": '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}',
    "llama": '{"name": "f", "parameters": {"a": 1}};{"name": "g", "parameters": {}}',
}


@pytest.mark.parametrize("name", list(FORMS))
def test_guaranteed_calls_are_the_same_and_stream(name: str) -> None:
    text = _GUARANTEED[name]
    assert parsed(FORMS[name], [text], trusted=True) == parsed(FORMS[name], list(text), trusted=True) == ("", [F, G])
    one = parser(FORMS[name], trusted=True)
    begun = text[: text.index('{"a": 1') + 5]
    assert one.push(begun).calls == (ToolCallDelta(0, "id0", "f"), ToolCallDelta(0, arguments='{"a":'))


def test_arguments_that_were_cut_short_are_given_as_far_as_they_came() -> None:
    assert parsed(HERMES, ['<tool_call>\n{"name": "f", "arguments": {"a"'], trusted=True) == (
        "",
        [ToolCall("id0", "f", '{"a"')],
    )


# -- any text, any cuts

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('<tool_cal>"\\{}[] é\n', max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
arguments = st.dictionaries(st.text('ab"<', max_size=3), values, max_size=3)
calls_of = st.lists(st.tuples(st.sampled_from(["f", "g"]), arguments), max_size=3)
_MARKS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", '{"name": "h"}']
_SIGNS = ["{", "}", '"', "[", "]", ",", " ", "\n", "<", "x", ";", "h"]
scraps = st.sampled_from([*_MARKS, *_SIGNS, _F, _G, "f"])


def cut(text: str, places: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:stop] for start, stop in pairwise(borders)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(FORMS)), st.lists(scraps, max_size=14).map("".join), st.lists(st.integers(0, 200)))
def test_cuts_do_not_matter(name: str, text: str, places: list[int]) -> None:
    assert parsed(FORMS[name], cut(text, places)) == parsed(FORMS[name], [text])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(FORMS)), st.lists(st.sampled_from([*_MARKS, *_SIGNS]), max_size=14).map("".join))
def test_without_a_known_name_nothing_is_lost(name: str, text: str) -> None:
    assert parsed(FORMS[name], list(text)) == (text, [])


@settings(max_examples=150, deadline=None)
@given(calls_of, st.text("ab <\n", max_size=5), st.booleans(), st.lists(st.integers(0, 300), max_size=8))
def test_what_was_written_as_calls_is_read_as_calls(
    written: list[tuple[str, dict[str, object]]], before: str, ascii_only: bool, places: list[int]
) -> None:
    texts = [json.dumps(value, ensure_ascii=ascii_only) for _, value in written]
    bodies = [f'{{"name": "{name}", "arguments": {text}}}' for (name, _), text in zip(written, texts, strict=True)]
    text = before + "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)
    content, calls = parsed(HERMES, cut(text, places))
    assert content == (before.rstrip() if bodies else before)
    assert [(call.name, call.arguments) for call in calls] == [
        (name, text) for (name, _), text in zip(written, texts, strict=True)
    ]
    if not before:
        assert parsed(HERMES, cut(text, places), trusted=True)[1] == calls
