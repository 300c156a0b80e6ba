"""Answers as bytes: they come back as they went, and what is not as it was written is refused."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.chat import constraints
from nbllm.core import Constraint, Timings, TokenLogprob, Usage
from nbllm.session.response import Response
from nbllm.session.stored import DamagedError, Entry, dumped, dumped_value, loaded
from tests.session.cached import ANSWER, KEY, OTHER_KEY

_TEXTS = st.text(st.characters(), max_size=6)
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
_NUMBERS = st.floats(allow_nan=False) | st.integers()
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(_RESPONSES)
def test_any_answer_comes_back_as_it_went(response: Response) -> None:
    entry = loaded(KEY, dumped(KEY, response, {"n": 1}))
    assert entry == Entry(response, {"n": 1})
    assert entry.response() == response


@settings(max_examples=50)
@given(_VALUES)
def test_any_value_comes_back_as_it_went(value: object) -> None:
    entry = loaded(KEY, dumped_value(KEY, value))
    assert entry == Entry(value=value)
    assert type(entry.value) is type(value)


def test_value_is_no_response() -> None:
    with pytest.raises(TypeError, match="no answer"):
        loaded(KEY, dumped_value(KEY, {"text": "x"})).response()


@pytest.mark.parametrize(
    ("finish_reason", "constraint", "parsed"),
    [
        pytest.param("stop", constraints.from_response_format("json_object"), {"a": 1}, id="json"),
        pytest.param("stop", constraints.regex(".*"), '{"a": 1}', id="regex"),
        pytest.param("length", constraints.from_response_format("json_object"), None, id="cut short"),
        pytest.param("stop", None, None, id="none"),
    ],
)
def test_parsed_is_made_again(finish_reason: Any, constraint: Constraint | None, parsed: object) -> None:
    data = dumped(KEY, replace(ANSWER, finish_reason=finish_reason, parsed="whatever"), {})
    assert loaded(KEY, data).response(constraint).parsed == parsed


# ---- damage


def _summed(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode() + body


def _edited(**changes: object) -> Callable[[bytes], bytes]:
    """The answer with some of it changed, its sum made right again."""

    def change(data: bytes) -> bytes:
        frame = json.loads(data[64:])
        frame["answer"].update(changes)
        return _summed(json.dumps(frame).encode())

    return change


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b" ",
    "without its sum": lambda data: data[64:],
    "another text": lambda data: data.replace(b"hm", b"HM"),
    "no JSON": lambda data: _summed(b"\xff\xfe\x00"),
    "another key": lambda data: _summed(data[64:].replace(KEY.encode(), OTHER_KEY.encode())),
    "another version": lambda data: _summed(data[64:].replace(b'"version": 1', b'"version": 2')),
    "another kind": lambda data: _summed(data[64:].replace(b'"answer":', b'"wisdom":')),
    "both kinds": lambda data: _summed(data[64:].replace(b'"answer":', b'"value": 1, "answer":')),
    "deeply nested": lambda data: _summed(b"[" * 10**6),
    "a list": lambda data: _summed(b"[]"),
    "a number": lambda data: _summed(b"1"),
    "a long number": lambda data: _summed(b"9" * 10_000),
    "text of another type": _edited(text=5),
    "unknown ending": _edited(finish_reason="interrupted"),
    "ending of another type": _edited(finish_reason=["stop"]),
    "tokens of another type": _edited(tokens=["7"]),
    "tokens of several types": _edited(tokens=[7, "7"]),
    "tokens true": _edited(tokens=[7, True]),
    "tokens negative": _edited(tokens=[7, -1]),
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
def test_damage_is_noticed(damage: Callable[[bytes], bytes]) -> None:
    good = dumped(KEY, ANSWER, {})
    assert loaded(KEY, _edited()(good)) == Entry(ANSWER)
    assert damage(good) != good
    with pytest.raises(DamagedError):
        loaded(KEY, damage(good))


@settings(max_examples=50)
@given(data=st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    good = dumped(KEY, ANSWER, {})
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[place]))
    with pytest.raises(DamagedError):
        loaded(KEY, good[:place] + bytes([byte]) + good[place + 1 :])
