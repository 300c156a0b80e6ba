"""Answers on disk: what their keys tell apart, that they come back as they went, and what damage does not do."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.chat import constraints
from nbllm.core import (
    ROLES,
    Constraint,
    GenerateRequest,
    Message,
    SamplingParams,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)
from nbllm.errors import ParameterError
from nbllm.session import cache as module
from nbllm.session.cache import AnswerCache, default_folder, key, versions
from nbllm.session.response import Response

KEY = "0123456789abcdef" * 4
OTHER_KEY = KEY[::-1]
ANSWER = Response(
    text='{"a": 1}',
    reasoning="hm\ud800",
    finish_reason="stop",
    usage=Usage(5, 3, 2, 1),
    timings=Timings(0.1, 1 / 3, 0.2, 1e-9),
    logprobs=(TokenLogprob(7, b"\xff\x00", -1.5, ((7, b"\xff", -1.5), (8, b"", -math.inf))),),
    tokens=(7, 8, 9),
    seed=2**32 - 2,
    model="smollm2",
)
REQUEST = GenerateRequest(messages=(Message("system", "s"), Message("user", "q", reasoning="r", name="n")))

TOOL = Tool(name="f", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})


@pytest.fixture
def answers(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "answers")


def key_of(request: GenerateRequest, file_hash: str = "f", version: str = "v") -> str:
    return key(file_hash=file_hash, request=request, version=version)


def path_of(answers: AnswerCache, key: str = KEY) -> Path:
    return answers.folder / key[:2] / key[2:4] / f"{key}.json"


# ---- keys

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


def test_answer_with_calls_is_not_kept(answers: AnswerCache) -> None:
    answers.put(KEY, replace(ANSWER, finish_reason="length", tool_calls=(ToolCall("call_1", "f", "{"),)))
    assert answers.get(KEY) is None


@pytest.mark.parametrize("name", list(_WITHOUT_EFFECT))
def test_key_stays_with_what_does_not_shape_the_text(name: str) -> None:
    assert key_of(replace(REQUEST, **{name: _WITHOUT_EFFECT[name]})) == key_of(REQUEST)


def test_key_stays_with_the_generated_ids() -> None:
    turns = (Message("user", "q"), Message("assistant", "a"), Message("user", "q"))
    reopened = (turns[0], replace(turns[1], tokens=(5, 6)), turns[2])
    assert key_of(GenerateRequest(messages=turns)) == key_of(GenerateRequest(messages=reopened))


def test_keys_of_model_and_version_differ() -> None:
    assert len({key_of(REQUEST), key_of(REQUEST, file_hash="g"), key_of(REQUEST, version="w")}) == 3


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


def test_default_folder_is_the_users_cache() -> None:
    assert default_folder().parts[-2:] == ("nbllm", "answers")


# ---- round trip


def test_answer_comes_back_as_it_went(answers: AnswerCache) -> None:
    assert answers.get(KEY) is None
    answers.put(KEY, ANSWER)
    assert answers.get(KEY) == ANSWER
    assert AnswerCache(answers.folder).get(KEY) == ANSWER
    assert answers.get(OTHER_KEY) is None


def test_notes_come_back_with_the_answer(answers: AnswerCache) -> None:
    notes = {"parameters": {"top_p": 0.1, "stop": ["x"]}, "model": "smollm2"}
    answers.put(KEY, ANSWER, notes)
    assert answers.find(KEY) == (ANSWER, notes)


_FLOATS = st.floats(0, allow_nan=False, allow_infinity=False)
_COUNTS = st.integers(0, 2**40)
_LOGPROBS = st.builds(
    TokenLogprob,
    _COUNTS,
    st.binary(max_size=4),
    st.floats(max_value=0, allow_nan=False),
    st.lists(st.tuples(_COUNTS, st.binary(max_size=3), st.floats(max_value=0, allow_nan=False)), max_size=2).map(tuple),
)
_RESPONSES = st.builds(
    Response,
    text=st.text(st.characters()),
    reasoning=_TEXTS,
    finish_reason=st.sampled_from(["stop", "length"]),
    usage=st.builds(Usage, _COUNTS, _COUNTS, _COUNTS, _COUNTS),
    timings=st.builds(Timings, _FLOATS, _FLOATS, _FLOATS, _FLOATS),
    logprobs=st.lists(_LOGPROBS, max_size=2).map(tuple),
    tokens=st.lists(_COUNTS, max_size=4).map(tuple),
    seed=st.none() | _COUNTS,
    model=_TEXTS,
)


@settings(max_examples=50)
@given(_RESPONSES)
def test_any_answer_comes_back_as_it_went(response: Response) -> None:
    with tempfile.TemporaryDirectory() as folder:
        answers = AnswerCache(Path(folder))
        answers.put(KEY, response)
        assert answers.get(KEY) == response


@pytest.mark.parametrize(
    ("finish_reason", "constraint", "parsed"),
    [
        pytest.param("stop", constraints.from_response_format("json_object"), {"a": 1}, id="json"),
        pytest.param("stop", constraints.regex(".*"), '{"a": 1}', id="regex"),
        pytest.param("length", constraints.from_response_format("json_object"), None, id="cut short"),
        pytest.param("stop", None, None, id="none"),
    ],
)
def test_parsed_is_made_again(
    answers: AnswerCache, finish_reason: Any, constraint: Constraint | None, parsed: object
) -> None:
    answers.put(KEY, replace(ANSWER, finish_reason=finish_reason, parsed="whatever"))
    found = answers.get(KEY, constraint)
    assert found is not None
    assert found.parsed == parsed


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"finish_reason": "interrupted"}, id="interrupted"),
        pytest.param({"finish_reason": "timeout"}, id="timeout"),
        pytest.param({"finish_reason": "error", "error": ValueError()}, id="error"),
        pytest.param({"choices": (ANSWER, ANSWER)}, id="several"),
        pytest.param({"text": "x" * module.MAX_FILE_BYTES}, id="too large"),
    ],
)
def test_what_is_not_one_whole_answer_is_not_kept(answers: AnswerCache, changes: dict[str, Any]) -> None:
    answers.put(KEY, replace(ANSWER, **changes))
    assert answers.get(KEY) is None
    assert answers.clear() == 0


def test_what_is_no_key_is_refused(answers: AnswerCache) -> None:
    for bad in ("../../etc/passwd", KEY.upper(), KEY + "\n", ""):
        with pytest.raises(ValueError, match="not a key"):
            answers.get(bad)


# ---- damage


def _edited(**changes: object) -> Callable[[bytes], bytes]:
    """The frame with some of it changed, its sum made right again."""

    def change(data: bytes) -> bytes:
        frame = json.loads(data)
        frame["answer"].update(changes)
        frame["sum"] = module_sum(frame["answer"])
        return json.dumps(frame).encode()

    return change


def module_sum(answer: object) -> str:
    from nbllm.session.stored import _sum

    return _sum(answer)


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "no JSON": lambda data: b"\xff\xfe\x00",
    "another key": lambda data: data.replace(KEY.encode(), OTHER_KEY.encode()),
    "another text": lambda data: data.replace(b"hm", b"HM"),
    "deeply nested": lambda data: b"[" * 10**6,
    "a list": lambda data: b"[]",
    "a long number": lambda data: b"9" * 10_000,
    "too large": lambda data: data + b" " * module.MAX_FILE_BYTES,
    "text of another type": _edited(text=5),
    "unknown ending": _edited(finish_reason="interrupted"),
    "ending of another type": _edited(finish_reason=["stop"]),
    "tokens of another type": _edited(tokens=["7"]),
    "tokens true": _edited(tokens=[True]),
    "tokens no list": _edited(tokens="77"),
    "usage negative": _edited(usage={"prompt_tokens": -1}),
    "usage without a part": _edited(usage={"prompt_tokens": 1}),
    "timings endless": _edited(timings=dict.fromkeys([spec.name for spec in fields(Timings)], math.inf)),
    "logprobs short": _edited(logprobs=[[1, "ff"]]),
    "logprobs no bytes": _edited(logprobs=[[1, "f", 0.0, []]]),
    "logprobs no number": _edited(logprobs=[[1, "ff", math.nan, []]]),
    "rival short": _edited(logprobs=[[1, "ff", 0.0, [[1]]]]),
    "seed of another type": _edited(seed=1.5),
    "notes no mapping": _edited(notes=[]),
    "another field": _edited(more=1),
}


@pytest.mark.parametrize("damage", list(_DAMAGE.values()), ids=list(_DAMAGE))
def test_damaged_file_is_as_good_as_none_and_replaced(answers: AnswerCache, damage: Callable[[bytes], bytes]) -> None:
    answers.put(KEY, ANSWER)
    good = path_of(answers).read_bytes()
    path_of(answers).write_bytes(damage(good))
    assert path_of(answers).read_bytes() != good
    assert answers.get(KEY) is None
    answers.put(KEY, ANSWER)
    assert answers.get(KEY) == ANSWER


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_noticed(answers: AnswerCache, data: st.DataObject) -> None:
    answers.put(KEY, ANSWER)
    good = path_of(answers).read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255))
    path_of(answers).write_bytes(good[:place] + bytes([byte]) + good[place + 1 :])
    assert answers.get(KEY) in (None, ANSWER)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipe_in_its_place_is_not_waited_for(answers: AnswerCache) -> None:
    path_of(answers).parent.mkdir(parents=True)
    os.mkfifo(path_of(answers))
    assert answers.get(KEY) is None


@pytest.mark.parametrize("obstacle", ["answer", "parent", "folder"])
def test_folder_that_cannot_be_written_costs_no_answer(answers: AnswerCache, obstacle: str) -> None:
    """A folder where the file should be, and files where folders should be: rights do not stop root."""
    path = path_of(answers)
    if obstacle == "answer":
        path.mkdir(parents=True)
    else:
        blocked = path.parent if obstacle == "parent" else answers.folder
        blocked.parent.mkdir(parents=True, exist_ok=True)
        blocked.write_text("a file")
    answers.put(KEY, ANSWER)
    assert answers.get(KEY) is None
    assert not list(answers.folder.rglob("*.unfinished"))


# ---- together, and size


def _put_and_get(folder: str, text: str) -> int:
    answers = AnswerCache(Path(folder))
    response = replace(ANSWER, text=text * 20_000)
    wrong = 0
    for _ in range(40):
        answers.put(KEY, response)
        found = answers.get(KEY)
        wrong += found is None or found.text not in ("a" * 20_000, "b" * 20_000)
    return wrong


def test_two_processes_see_only_whole_answers(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_put_and_get, [(str(tmp_path), "a"), (str(tmp_path), "b")]) == [0, 0]


def test_clear_removes_answers_and_only_them(answers: AnswerCache) -> None:
    for response_key in (KEY, OTHER_KEY):
        answers.put(response_key, ANSWER)
    foreign = path_of(answers).parent / "notes.txt"
    foreign.write_text("mine")
    assert answers.clear() == 2
    assert answers.get(KEY) is None
    assert [path for path in answers.folder.rglob("*") if path.is_file()] == [foreign]
    assert answers.clear() == 0


def test_clear_of_no_folder_is_harmless(answers: AnswerCache) -> None:
    assert answers.clear() == 0


def test_oldest_used_answers_go_when_they_are_too_many(tmp_path: Path) -> None:
    keys = [f"{number:064x}" for number in range(10)]
    many = AnswerCache(tmp_path)
    for age, response_key in enumerate(keys):
        many.put(response_key, ANSWER)
        os.utime(path_of(many, response_key), (1000 + age, 1000 + age))
    size = path_of(many, keys[0]).stat().st_size
    unfinished = path_of(many, keys[0]).with_name("left.unfinished")
    unfinished.write_text("half")
    os.utime(unfinished, (1000, 1000))
    assert many.get(keys[0]) == ANSWER
    few = AnswerCache(tmp_path, max_bytes=5 * size)
    few.put(KEY, ANSWER)
    kept = [response_key for response_key in keys if few.get(response_key) is not None]
    assert kept == [keys[0], *keys[-2:]]
    assert few.get(KEY) == ANSWER
    assert not unfinished.exists()
