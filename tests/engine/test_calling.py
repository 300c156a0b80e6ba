"""Calls of tools through the whole engine: over a toy model that says what a test wants, then by itself."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from nbllm.chat.callformats import format_of
from nbllm.core import Chunk, Constraint, GenerateRequest, Message, SamplingParams, Tool, ToolCall
from nbllm.engine.backend import Context
from nbllm.errors import ParameterError
from nbllm.session.response import Collector, Response
from nbllm.testing import BOS, EOS, IM_END, ToyBackend
from nbllm.testing.choosing import ToySampler
from tests.chat import tool_fixtures
from tests.engine.hand import Hand

DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
F = Tool(name="f", parameters={"type": "object", "properties": {"a": DIGIT}, "required": ["a"]})
G = Tool(name="g", parameters={"type": "object", "properties": {"b": {"enum": ["x", "y"]}}, "required": ["b"]})
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


class _Saying(ToyBackend):
    """Says what it is told to, token by token.

    Args:
        ids: tokens that stand for a text of their own.
        goes_on: as the toy does; else the answer ends.
    """

    def __init__(self, said: str, *, ids: dict[str, int] | None = None, goes_on: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.said, self.ids, self.goes_on = said, ids or {}, goes_on

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if parse_special and text in self.ids:
            return [self.ids[text]]
        return super().tokenize(text, add_special=add_special, parse_special=parse_special)

    def make_sampler(self, params: SamplingParams, prompt_tail: Sequence[int], max_generated: int) -> ToySampler:
        text = self.said
        tokens: list[int] = []
        while text:
            mark = next((mark for mark in self.ids if text.startswith(mark)), "")
            tokens += [self.ids[mark]] if mark else text[0].encode()
            text = text[len(mark) or 1 :]
        return _SayingSampler(params, prompt_tail, tokens if self.goes_on else [*tokens, EOS])


class _SayingSampler(ToySampler):
    def __init__(self, params: SamplingParams, prompt_tail: Sequence[int], said: Sequence[int]) -> None:
        super().__init__(params, prompt_tail)
        self._said = deque(said)
        self.has_memory = True  # so that it is told of the tokens that a grammar forces

    def sample(self, context: Context, row: int) -> int:
        return self._said.popleft() if self._said else super().sample(context, row)

    def accept(self, token: int) -> None:
        super().accept(token)
        if self._said and self._said[0] == token:
            self._said.popleft()


def request(*tools: Tool, text: str = "hi", seed: int = 1, max_tokens: int = 300, **more: Any) -> GenerateRequest:
    sampling = SamplingParams(seed=seed, max_tokens=max_tokens, temperature=1, **more.pop("sampling", {}))
    return GenerateRequest(messages=(Message("user", text),), tools=tools or (F, G), sampling=sampling, **more)


def hand(backend: ToyBackend | None = None) -> Hand:
    return Hand(backend or ToyBackend(ends=30), context_length=2048)


def answer(one: Hand, asked: GenerateRequest, index: int = 0) -> Response:
    collector = Collector("toy")
    for chunk in one.answer(asked).chunks[index]:
        collector.add(chunk)
    return collector.response()


# ---- free answers


def test_call_is_taken_out_of_the_answer() -> None:
    response = answer(hand(_Saying(f"Sure.\n{CALL}")), request())
    (call,) = response.tool_calls
    assert (response.text, call.name, call.arguments) == ("Sure.", "f", '{"a": 1}')
    assert response.finish_reason == "tool_calls"


def test_answer_without_a_call_is_as_ever() -> None:
    response = answer(hand(_Saying("No <tool>, sorry.")), request())
    assert (response.text, response.tool_calls, response.finish_reason) == ("No <tool>, sorry.", (), "stop")


def test_what_was_begun_as_a_call_becomes_one() -> None:
    for seed in range(5):
        response = answer(hand(_Saying("Well: <tool_call>", goes_on=True, ends=10)), request(seed=seed))
        assert response.text == "Well:"
        assert response.tool_calls
        for call in response.tool_calls:
            check(call)


def test_call_of_a_tool_whose_schema_cannot_be_kept_is_still_read() -> None:
    tool = Tool(name="f", parameters={"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}})
    (call,) = answer(hand(_Saying(CALL)), request(tool)).tool_calls
    assert call.arguments == '{"a": 1}'


def test_only_one_call_is_taken_when_there_may_be_no_more() -> None:
    response = answer(hand(_Saying(CALL * 2)), request(parallel_tool_calls=False))
    assert [call.name for call in response.tool_calls] == ["f"]
    assert response.usage.completion_tokens < len(CALL)


def test_choice_none_reads_and_shows_no_tools() -> None:
    one = hand(_Saying(CALL))
    response = answer(one, request(tool_choice="none"))
    assert (response.text, response.tool_calls) == (CALL, ())
    plain = one.engine.render(GenerateRequest(messages=(Message("user", "hi"),)))
    assert one.engine.render(request(tool_choice="none")) == plain


def test_stop_text_does_not_count_within_a_call() -> None:
    response = answer(hand(_Saying(f"a{CALL}")), request(sampling={"stop": ("arguments", "b")}))
    assert (response.text, len(response.tool_calls)) == ("a", 1)


def test_call_after_the_thinking_is_read_and_one_in_it_is_not() -> None:
    response = answer(hand(_Saying(f"<think>{CALL}</think>{CALL}")), request())
    assert (response.reasoning, response.text, len(response.tool_calls)) == (CALL, "", 1)


def test_marks_that_are_control_tokens_are_read() -> None:
    backend = _Saying(
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]',
        ids={"[TOOL_CALLS]": 259},
        chat_template=tool_fixtures.MISTRAL,
    )
    response = answer(hand(backend), request())
    assert [(call.name, call.arguments) for call in response.tool_calls] == [("f", '{"a": 1}')]
    assert response.tokens[0] == 259


# ---- calls that were promised


def check(call: ToolCall) -> None:
    value = json.loads(call.arguments)
    assert call.name in ("f", "g")
    assert value in ([{"a": digit} for digit in range(10)] if call.name == "f" else [{"b": "x"}, {"b": "y"}])


@pytest.mark.parametrize("source", list(tool_fixtures.KNOWING))
def test_call_is_guaranteed(source: str) -> None:
    for seed in range(4):
        one = hand(ToyBackend(chat_template=tool_fixtures.KNOWING[source], ends=20))
        response = answer(one, request(seed=seed, tool_choice="required", max_tokens=1500))
        assert (response.text, response.finish_reason) == ("", "tool_calls")
        assert 1 <= len(response.tool_calls) <= 16
        for call in response.tool_calls:
            check(call)


def test_model_that_never_ends_has_to() -> None:
    response = answer(hand(ToyBackend(ends=-50)), request(tool_choice="required", max_tokens=1500))
    assert (len(response.tool_calls), response.finish_reason) == (16, "tool_calls")


def test_forced_tool_is_called_once() -> None:
    for seed in range(4):
        response = answer(hand(), request(seed=seed, tool_choice="required", forced_tool="g"))
        assert [call.name for call in response.tool_calls] == ["g"]


def test_promised_call_begins_after_the_thinking() -> None:
    opens = tool_fixtures.HERMES.replace("<|im_start|>assistant\\n'", "<|im_start|>assistant\\n<think>'")
    response = answer(
        hand(_Saying("so</think>", goes_on=True, chat_template=opens)),
        request(tool_choice="required", parallel_tool_calls=False),
    )
    assert response.reasoning == "so"
    check(response.tool_calls[0])


def test_call_that_was_cut_short_ends_with_length() -> None:
    response = answer(hand(), request(tool_choice="required", forced_tool="f", max_tokens=42))
    assert response.finish_reason == "length"
    assert [call.arguments for call in response.tool_calls] == ['{"a"']


@pytest.mark.parametrize("max_tokens", [1, 5, 20])
def test_call_that_was_cut_before_its_arguments_is_not_shown_as_text(max_tokens: int) -> None:
    response = answer(hand(), request(tool_choice="required", forced_tool="f", max_tokens=max_tokens))
    assert (response.text, response.finish_reason, response.usage.completion_tokens) == ("", "length", max_tokens)


def test_call_that_was_begun_freely_and_cut_is_not_shown_as_text() -> None:
    backend = _Saying("Well: <tool_call>", goes_on=True, ends=10)
    response = answer(hand(backend), request(max_tokens=len("Well: <tool_call>") + 5))
    assert (response.text, response.tool_calls, response.finish_reason) == ("Well:", (), "length")


def test_schema_that_cannot_be_kept_is_refused_when_a_call_is_promised() -> None:
    bad = Tool(name="bad", parameters={"type": "array"})
    with pytest.raises(ParameterError, match=r"parameters: tool 'bad': its parameters must be") as caught:
        hand().ask(request(Tool(name="good"), bad, tool_choice="required", forced_tool="bad"))
    assert caught.value.param == "tools[1].function.parameters"


def test_logprobs_go_with_calls() -> None:
    one = hand().answer(request(tool_choice="required", forced_tool="f", sampling={"logprobs": True}))
    entries = [entry for chunk in one.chunks[0] for entry in chunk.logprobs]
    assert [entry.token for entry in entries] == list(one.tokens())


# ---- ids


def ids(one: Hand, asked: GenerateRequest, index: int = 0) -> list[str]:
    return [call.id for call in answer(one, asked, index).tool_calls]


def test_ids_can_be_repeated_and_differ() -> None:
    one = hand(_Saying(CALL * 3))
    first = ids(one, request())
    assert first == ids(one, request())
    assert len({*first, *ids(one, request(seed=2)), *ids(one, request(text="ho"))}) == 9
    assert all(name.startswith("call_") and len(name) == 29 for name in first)
    both = request(sampling={"n": 2})
    assert not {*ids(one, both)} & {*ids(one, both, index=1)}


# ---- what does not go together


def test_promised_call_cannot_continue_a_message() -> None:
    messages = (Message("user", "hi"), Message("assistant", "so"))
    with pytest.raises(ParameterError) as raised:
        hand().ask(replace(request(), messages=messages, continue_final=True, tool_choice="required"))
    assert raised.value.param == "tool_choice"


# ---- calls or an answer of a shape


PERSON = {"type": "object", "properties": {"name": {"enum": ["f", "Al"]}, "age": DIGIT}, "required": ["name", "age"]}
SHAPES = {
    "JSON": Constraint("json_schema", json.dumps({**PERSON, "additionalProperties": False})),
    "references": Constraint("json_schema", '{"$ref": "#/$defs/a", "$defs": {"a": {"type": "boolean"}}}'),
    "regex": Constraint("regex", "[0-9]{3}"),
    "choice": Constraint("choice", '["yes", "no"]'),
    "Lark": Constraint("lark", 'start: "a" call\ncall: "b"'),
    "GBNF": Constraint("gbnf", 'root ::= "a" [b-d]'),
}
SAID = {
    "JSON": '{"name": "f", "age": 3}',
    "references": "true",
    "regex": "123",
    "choice": "yes",
    "Lark": "ab",
    "GBNF": "ac",
}


@pytest.mark.parametrize("source", list(tool_fixtures.KNOWING))
@pytest.mark.parametrize("kind", list(SHAPES))
def test_answer_beside_tools_has_the_shape(source: str, kind: str) -> None:
    backend = _Saying(SAID[kind], chat_template=tool_fixtures.KNOWING[source])
    response = answer(hand(backend), request(constraint=SHAPES[kind]))
    assert (response.text, response.tool_calls, response.finish_reason) == (SAID[kind], (), "stop")


@pytest.mark.parametrize("source", list(tool_fixtures.KNOWING))
@pytest.mark.parametrize("kind", list(SHAPES))
def test_call_beside_a_shape_is_one(source: str, kind: str) -> None:
    template = tool_fixtures.KNOWING[source]
    form = format_of(template)
    body = json.dumps({"name": "f", form.arguments: {"a": 1}})
    said = {"llama": body, "mistral": f"[TOOL_CALLS][{body}]"}.get(source, f"<tool_call>\n{body}\n</tool_call>")
    response = answer(hand(_Saying(said, chat_template=template)), request(constraint=SHAPES[kind]))
    (call,) = response.tool_calls
    assert (response.text, call.name, call.arguments) == ("", "f", '{"a": 1}')
    assert response.finish_reason == "tool_calls"


@pytest.mark.parametrize("source", list(tool_fixtures.KNOWING))
def test_answer_beside_tools_is_nothing_else_than_calls_or_the_shape(source: str) -> None:
    for seed in range(6):
        backend = ToyBackend(chat_template=tool_fixtures.KNOWING[source], ends=20)
        response = answer(hand(backend), request(seed=seed, constraint=SHAPES["JSON"], max_tokens=1500))
        if response.tool_calls:
            assert (response.text, response.finish_reason) == ("", "tool_calls")
            for call in response.tool_calls:
                check(call)
        else:
            assert json.loads(response.text).keys() == {"name", "age"}


def test_call_in_a_text_of_the_shape_is_text() -> None:
    said = json.dumps(CALL)
    response = answer(hand(_Saying(said)), request(constraint=Constraint("json_schema", '{"type": "string"}')))
    assert (response.text, response.tool_calls) == (said, ())


def test_call_beside_a_shape_that_was_cut_is_not_shown_as_text() -> None:
    asked = request(constraint=SHAPES["JSON"], max_tokens=len("<tool_call>") + 8)
    response = answer(hand(_Saying(CALL)), asked)
    assert (response.text, response.tool_calls, response.finish_reason) == ("", (), "length")


def test_tool_whose_schema_cannot_be_kept_leaves_the_shape_its_promise() -> None:
    tool = Tool(name="f", parameters={"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}})
    asked = request(tool, constraint=SHAPES["choice"])
    (call,) = answer(hand(_Saying(CALL)), asked).tool_calls
    assert call.arguments == '{"a": 1}'
    assert answer(hand(_Saying("no")), asked).text == "no"


def test_promised_call_has_no_shape() -> None:
    response = answer(hand(), request(constraint=SHAPES["choice"], tool_choice="required", forced_tool="g"))
    assert [call.name for call in response.tool_calls] == ["g"]


def test_constraint_goes_with_tools_that_may_not_be_called() -> None:
    asked = request(constraint=Constraint("choice", '["yes"]'), tool_choice="none")
    assert answer(hand(), asked).text == "yes"


def test_pieces_of_a_call_are_chunks() -> None:
    one = hand().answer(request(tool_choice="required", forced_tool="f"))
    chunks: list[Chunk] = one.chunks[0]
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert (deltas[0].index, deltas[0].name, deltas[0].arguments) == (0, "f", "")
    assert all(delta.id is None and delta.name is None for delta in deltas[1:])
    assert not {BOS, IM_END, EOS} & set(one.tokens())
