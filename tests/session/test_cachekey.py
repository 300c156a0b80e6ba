"""What the keys of answers tell apart."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core import (
    ROLES,
    ChoiceRequest,
    Constraint,
    EmbedRequest,
    GenerateRequest,
    Message,
    SamplingParams,
    Tool,
    ToolCall,
)
from nbllm.core.adapters import Adapter
from nbllm.core.presets import Preset, applied
from nbllm.errors import ModelLoadError, ParameterError
from nbllm.session.cachekey import engine_options, key, preset_key, versions
from nbllm.testing import ScriptedEngine

REQUEST = GenerateRequest(messages=(Message("system", "s"), Message("user", "q", reasoning="r", name="n")))
CHOICE = ChoiceRequest(messages=(Message("user", "q"),), choices=("yes", "no"))
EMBED = EmbedRequest(texts=("a", "b"))
OLD_KEYS = ["20134f8aec33", "c5d752b71970", "044e85d8f994"]
"""How their keys began before there were presets: what was kept then is still found."""

TOOL = Tool(name="f", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})


def key_of(request: GenerateRequest | EmbedRequest | ChoiceRequest, file_hash: str = "f", version: str = "v") -> str:
    return key(file_hash=file_hash, request=request, version=version)


_CHANGED_SAMPLING: dict[str, Any] = {
    "stop": ("x",),
    "logit_bias": {3: 1.0},
    "logprobs": True,
    "top_logprobs": 3,
    "n": 2,
    "max_tokens": 0,
    "top_k": 0,
    "repeat_last_n": 0,
    "seed": 0,
}
_CHANGED_REQUEST: dict[str, Any] = {
    "constraint": Constraint("regex", "a+"),
    "reproducible": True,
    "parse_special": True,
    "template_options": {"enable_thinking": False},
    "continue_final": True,
    "prompt_logprobs": True,
    "tools": (TOOL,),
    "template": "{{ messages }}",
    "adapters": (Adapter(__file__),),
}
_CHANGED_WITH_TOOLS: dict[str, Any] = {
    "tools": (replace(TOOL, description="d"), replace(TOOL, name="g")),
    "tool_choice": "required",
    "forced_tool": "f",
    "parallel_tool_calls": False,
}
_WITHOUT_EFFECT: dict[str, Any] = {"timeout_s": 3.0, "priority": "batch", "cache_prompt": False}


@pytest.mark.parametrize("name", [spec.name for spec in fields(SamplingParams)])
def test_key_changes_with_each_sampling_parameter(name: str) -> None:
    base = SamplingParams(logprobs=True) if name == "top_logprobs" else SamplingParams()
    changed = replace(base, **{name: _CHANGED_SAMPLING.get(name, 0.5)})
    assert changed != base
    assert key_of(replace(REQUEST, sampling=changed)) != key_of(replace(REQUEST, sampling=base))


def test_every_field_of_a_request_is_tried_here() -> None:
    """A field that is added needs a decision: it changes the key, or has no effect on the text."""
    tried = {*_CHANGED_REQUEST, *_CHANGED_WITH_TOOLS, *_WITHOUT_EFFECT}
    tried |= {"messages", "text", "tokens", "sampling", "suffix"}
    assert {spec.name for spec in fields(GenerateRequest)} == tried


@pytest.mark.parametrize("name", list(_CHANGED_REQUEST))
def test_key_changes_with_each_field(name: str) -> None:
    assert key_of(replace(REQUEST, **{name: _CHANGED_REQUEST[name]})) != key_of(REQUEST)


@pytest.mark.parametrize("name", list(_CHANGED_WITH_TOOLS))
def test_key_changes_with_each_field_of_tools(name: str) -> None:
    base = replace(REQUEST, tools=(TOOL,))
    assert key_of(replace(base, **{name: _CHANGED_WITH_TOOLS[name]})) != key_of(base)


def test_key_tells_any_arguments_from_none() -> None:
    tools = [replace(TOOL, parameters=None), replace(TOOL, parameters={"type": "object", "properties": {}})]
    assert len({key_of(replace(REQUEST, tools=(tool,))) for tool in tools}) == 2


def test_key_changes_with_the_suffix() -> None:
    assert key_of(GenerateRequest(text="a")) != key_of(GenerateRequest(text="a", suffix=""))


def test_key_changes_with_the_calls_of_earlier_turns() -> None:
    call = ToolCall("call_1", "f", "{}")
    turns = [
        Message("assistant", ""),
        Message("assistant", "", tool_calls=(call,)),
        Message("assistant", "", tool_calls=(replace(call, arguments='{"a": 1}'),)),
        Message("tool", "", tool_call_id="call_1"),
        Message("tool", "", tool_call_id="call_2"),
    ]
    assert len({key_of(GenerateRequest(messages=(turn,))) for turn in turns}) == len(turns)


def test_key_without_tools_is_what_it_was_before_there_were_any() -> None:
    assert key_of(REQUEST) == "20134f8aec335d580f325dc1ff853faabc12809bdca84071c8efc5a51e9c2a97"


@pytest.mark.parametrize("name", list(_WITHOUT_EFFECT))
def test_key_stays_with_what_does_not_shape_the_text(name: str) -> None:
    assert key_of(replace(REQUEST, **{name: _WITHOUT_EFFECT[name]})) == key_of(REQUEST)


def test_key_stays_with_the_generated_ids() -> None:
    turns = (Message("user", "q"), Message("assistant", "a"), Message("user", "q"))
    reopened = (turns[0], replace(turns[1], tokens=(5, 6)), turns[2])
    assert key_of(GenerateRequest(messages=turns)) == key_of(GenerateRequest(messages=reopened))


def test_keys_of_model_and_version_differ() -> None:
    assert len({key_of(REQUEST), key_of(REQUEST, file_hash="g"), key_of(REQUEST, version="w")}) == 3


def test_keys_of_unusual_engines_differ() -> None:
    usual = ScriptedEngine().info
    changed: list[dict[str, Any]] = [{"kv_type": "q8_0"}, {"gpu_layers": 12}]
    changed += [{"flash_attention": True}, {"flash_attention": False}]
    infos = [usual, *(replace(usual, **one) for one in changed)]
    keys = [key(file_hash="f", request=REQUEST, version="v", engine=engine_options(info)) for info in infos]
    assert len(set(keys)) == 5
    assert keys[0] == key_of(REQUEST)


@pytest.mark.parametrize("name", ["max_sequences", "kv_tokens", "context_length"])
def test_key_stays_with_what_an_engine_holds(name: str) -> None:
    usual = ScriptedEngine().info
    changed: dict[str, Any] = {name: 99}
    assert engine_options(replace(usual, **changed)) == engine_options(usual) == {}


def test_keys_of_the_three_forms_differ() -> None:
    forms = [GenerateRequest(text="1"), GenerateRequest(tokens=(1,)), GenerateRequest(messages=(Message("user", "1"),))]
    assert len(set(map(key_of, forms))) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"x": 1}, {"x": True}, id="number and switch"),
        pytest.param({"x": 1}, {"x": "1"}, id="number and text"),
        pytest.param({"x": [1, 2]}, {"x": [[1], 2]}, id="nesting"),
        pytest.param({"x": None}, {}, id="none and nothing"),
    ],
)
def test_keys_of_template_options_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key_of(replace(REQUEST, template_options=one)) != key_of(replace(REQUEST, template_options=other))


def test_key_of_an_option_that_is_no_data_is_refused() -> None:
    with pytest.raises(ParameterError, match="must be plain data"):
        key_of(replace(REQUEST, template_options={"x": object()}))


def test_key_does_not_depend_on_order_or_spelling() -> None:
    one = replace(REQUEST, sampling=SamplingParams(logit_bias={1: 2, 30: 4.0}, temperature=0, stop=cast("Any", "x")))
    other = replace(REQUEST, sampling=SamplingParams(logit_bias={30: 4, 1: 2.0}, temperature=-0.0, stop=("x",)))
    assert one == other
    assert key_of(one) == key_of(other)


_TEXTS = st.text(st.characters(), max_size=6)
_MESSAGES = st.builds(
    Message, st.sampled_from(ROLES), _TEXTS, reasoning=st.none() | _TEXTS, name=st.none() | st.sampled_from(["", "n"])
)
_SAMPLING = st.builds(
    SamplingParams,
    temperature=st.none() | st.sampled_from([0, 0.0, -0.0, 0.7, 1]),
    max_tokens=st.none() | st.integers(0, 3),
    stop=st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple),
    logit_bias=st.dictionaries(st.integers(0, 2), st.sampled_from([1, 1.0, -0.0, 0]), max_size=2),
)
_REQUESTS = st.builds(
    GenerateRequest,
    messages=st.lists(_MESSAGES, max_size=2).map(tuple),
    sampling=_SAMPLING,
    constraint=st.none() | st.builds(Constraint, st.sampled_from(["regex", "lark"]), st.sampled_from(["a", "b"])),
    continue_final=st.booleans(),
)


@given(_REQUESTS, _REQUESTS)
def test_keys_are_equal_exactly_where_requests_are(one: GenerateRequest, other: GenerateRequest) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)


@given(_REQUESTS)
def test_equal_requests_have_equal_keys(request: GenerateRequest) -> None:
    turns = tuple(replace(turn) for turn in request.messages or ())
    assert key_of(replace(request, messages=turns, sampling=replace(request.sampling))) == key_of(request)


def test_versions_names_both() -> None:
    assert "nbllm 0" in versions()
    assert "llama-cpp-python 0.3" in versions()


# ---- requests that are no prompts

_CHANGED_CHOICE: dict[str, Any] = {
    "messages": (Message("user", "r"),),
    "choices": ("yes", "maybe"),
    "template_options": {"enable_thinking": False},
    "reproducible": True,
    "template": "{{ messages }}",
    "adapters": (Adapter(__file__),),
}


@pytest.mark.parametrize("name", [spec.name for spec in fields(ChoiceRequest)])
def test_key_of_choices_changes_with_what_shapes_their_likelihood(name: str) -> None:
    """A field that is added needs a decision, and is a KeyError here until it has one."""
    changed = replace(CHOICE, **{name: {**_CHANGED_CHOICE, **_WITHOUT_EFFECT}[name]})
    assert (key_of(changed) == key_of(CHOICE)) == (name in _WITHOUT_EFFECT)


def test_key_of_choices_changes_with_their_order() -> None:
    """Their chunks are told apart by it."""
    assert key_of(replace(CHOICE, choices=CHOICE.choices[::-1])) != key_of(CHOICE)


def test_key_of_choices_with_an_option_that_is_no_data_is_refused() -> None:
    with pytest.raises(ParameterError, match="must be plain data"):
        key_of(replace(CHOICE, template_options={"x": object()}))


def test_key_of_texts_to_embed_is_of_the_texts_and_the_length() -> None:
    request = EmbedRequest(texts=("a", "b"))
    assert key_of(replace(request, timeout_s=1.0, priority="batch")) == key_of(request)
    others = [EmbedRequest(texts=texts) for texts in (("a",), ("b", "a"), ("ab",), ("a,b",), ())]
    assert len({key_of(request), *map(key_of, others)}) == 6
    assert key_of(replace(request, unit=False)) != key_of(request)
    assert {spec.name for spec in fields(EmbedRequest)} == {"texts", "unit", "timeout_s", "priority", "adapters"}


def test_keys_of_the_kinds_of_requests_differ() -> None:
    chat = GenerateRequest(messages=CHOICE.messages)
    assert len({key_of(chat), key_of(CHOICE), key_of(EmbedRequest(texts=("q",)))}) == 3


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "lora.gguf"
    path.write_bytes(b"one")
    return path


@pytest.mark.parametrize(
    "request_", [pytest.param(REQUEST, id="text"), pytest.param(CHOICE, id="choice"), pytest.param(EMBED, id="embed")]
)
def test_key_has_the_content_of_adapters_and_their_scale(
    request_: GenerateRequest | ChoiceRequest | EmbedRequest, lora: Path, tmp_path: Path
) -> None:
    def with_adapter(path: Path, scale: float = 1.0) -> str:
        return key_of(replace(request_, adapters=(Adapter(str(path), scale),)))

    before, copy = with_adapter(lora), tmp_path / "copy.gguf"
    copy.write_bytes(b"one")
    assert before != key_of(request_)
    assert before == with_adapter(copy)
    assert before != with_adapter(lora, 0.5)
    lora.write_bytes(b"another")
    assert before != with_adapter(lora)


def test_adapter_is_hashed_once_while_it_is_the_same_file(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def hash_of(path: str) -> str:
        asked.append(path)
        return "hash"

    monkeypatch.setattr("nbllm.session.cachekey.hash_of_file", hash_of)
    request = replace(REQUEST, adapters=(Adapter(str(lora)),))
    assert key_of(request) == key_of(request)
    os.utime(lora, ns=(1, 1))
    key_of(request)
    assert asked == [str(lora)] * 2


def test_key_of_a_missing_adapter_says_which(lora: Path) -> None:
    lora.unlink()
    with pytest.raises(ModelLoadError, match=r"lora\.gguf"):
        key_of(replace(REQUEST, adapters=(Adapter(str(lora)),)))


@pytest.mark.parametrize("request_", [pytest.param(REQUEST, id="text"), pytest.param(CHOICE, id="choice")])
def test_key_has_the_template(request_: GenerateRequest | ChoiceRequest) -> None:
    keys = {key_of(replace(request_, template=template)) for template in (None, "", "{{ messages }}")}
    assert len(keys) == 3


@pytest.mark.parametrize("adapters", [None, ()])
def test_request_without_adapters_has_the_key_that_it_always_had(adapters: tuple[Adapter, ...] | None) -> None:
    keys = [key_of(replace(request, adapters=adapters)) for request in (REQUEST, CHOICE, EMBED)]
    assert [one[:12] for one in keys] == OLD_KEYS


PRESET = Preset(name="mario", base="toy", system="You are Mario.")


def test_preset_that_changes_nothing_shares_its_bases_keys() -> None:
    idle = Preset(name="idle", base="toy", context_length=512, licenses=("MIT",))
    for request in (REQUEST, CHOICE, EMBED):
        assert key_of(applied(idle, request)) == key_of(request)
    assert preset_key(idle) == preset_key(None) == ""


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        pytest.param({"name": "luigi"}, True, id="name"),
        pytest.param({"system": "You are Luigi."}, False, id="system"),
        pytest.param({"messages": (Message("user", "hi"),)}, False, id="messages"),
        pytest.param({"sampling": SamplingParams(temperature=0.0)}, False, id="sampling"),
        pytest.param({"template": "{{ messages }}"}, False, id="template"),
    ],
)
def test_preset_key_is_of_what_it_does(changes: dict[str, Any], is_same: bool) -> None:
    assert (preset_key(replace(PRESET, **changes)) == preset_key(PRESET)) is is_same
