from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.wire.decoding import (
    decoded,
    json_object,
    json_text,
    plain_json,
    refuse,
    renamed,
    unknown_keys,
    unknown_names,
)


class Inner(msgspec.Struct):
    name: str


class Body(msgspec.Struct):
    model: str
    size: int | float | None = None
    flag: bool | None = None
    items: list[Inner] | None = None
    names: str | list[str] | None = None


MALFORMED = {
    "empty": (b"", "is empty"),
    "white space": (b" \n", "is empty"),
    "cut off": (b'{"model": "a"', "ends too early"),
    "more behind it": (b'{"model": "a"} x', "trailing characters"),
    "a list": (b"[1]", "not a list"),
    "null": (b"null", "not null"),
    "a number": (b"3", "not a number"),
    "NaN": (b'{"size": NaN}', "not valid JSON"),
    "infinity": (b'{"size": -Infinity}', "not valid JSON"),
    "beyond a float": (b'{"size": 1e400}', "out of range"),
    "5000 digits": (b'{"size": %b}' % (b"9" * 5000), "out of range"),
    "5000 digits and a fraction": (b'{"size": %b.5}' % (b"9" * 5000), "out of range"),
    "not UTF-8": (b'{"model": "\xff"}', "not in UTF-8"),
    "surrogate in UTF-8": (b'{"model": "\xed\xa0\x80"}', "not in UTF-8"),
    "UTF-16": ('{"model": "a"}'.encode("utf-16"), "not valid JSON"),
    "half a surrogate pair": (b'{"model": "\\ud800 and more"}', "surrogate"),
    "the other half": (b'{"model": "\\udc00"}', "surrogate"),
    "in a key": (b'{"\\ud83dabcdefgh": 1}', "surrogate"),
    "a million deep": (b'{"a":' + b"[" * 1_000_000, "too deeply"),
    "a million objects deep": (b'{"a":' * 1_000_000, "too deeply"),
    "control character": (b'{"model": "a\nb"}', "not valid JSON"),
    "form": (b"model=a&size=3", "not valid JSON"),
}


@pytest.mark.parametrize(("body", "problem"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_body_is_one_line(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem) as caught:
        json_object(body)
    assert not isinstance(caught.value, ParameterError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_integers_up_to_the_limit_of_python_are_read() -> None:
    digits = sys.get_int_max_str_digits()
    assert json_object(b'{"a": %b}' % (b"9" * digits))["a"] == 10**digits - 1


def test_last_of_two_equal_keys_wins() -> None:
    assert decoded(b'{"model": "a", "model": "b"}', Body)[0].model == "b"


def test_byte_order_mark_is_no_obstacle() -> None:
    assert decoded(b'\xef\xbb\xbf{"model": "a"}', Body)[0].model == "a"


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing": ({}, "model", "is required: the name of a model"),
    "null": ({"model": None}, "model", "is required: the name of a model"),
    "number for a string": ({"model": 3}, "model", "must be a string, not a number"),
    "string for a number": ({"model": "a", "size": "3"}, "size", "must be a number, not a string"),
    "boolean for a number": ({"model": "a", "size": True}, "size", "must be a number, not a boolean"),
    "number for a boolean": ({"model": "a", "flag": 1}, "flag", "must be true or false, not a number"),
    "object for either": ({"model": "a", "names": {}}, "names", "must be a string or a list, not an object"),
    "in a list": ({"model": "a", "names": ["a", 1]}, "names[1]", "must be a string, not a number"),
    "null in a list": ({"model": "a", "items": [None]}, "items[0]", "must be an object, not null"),
    "missing within": ({"model": "a", "items": [{"name": "b"}, {}]}, "items[1].name", "is required"),
}


@pytest.mark.parametrize(("body", "param", "problem"), WRONG.values(), ids=WRONG.keys())
def test_wrong_field_is_named(body: dict[str, Any], param: str, problem: str) -> None:
    with pytest.raises(ParameterError) as caught:
        decoded(msgspec.json.encode(body), Body)
    assert caught.value.param == param
    assert problem in caught.value.problem


def test_null_and_integral_floats_are_taken() -> None:
    body, _ = decoded(b'{"model": "a", "size": 1688.0, "flag": null, "items": null}', Body)
    assert (body.size, body.flag, body.items) == (1688.0, None, None)


def test_unknown_keys_are_reported_fit_for_a_log() -> None:
    raw = {"model": "a", "typo": 1, "a\nb": 1, "\x1b[31m": 1, "ok": 1, "x" * 500: 1}
    assert unknown_keys(raw, Body, {"ok"}) == ("typo", r"a\nb", r"\x1b[31m", "x" * 60)
    assert len(unknown_keys({str(number): 1 for number in range(1000)}, Body)) == 20


def test_unknown_names_are_reported_fit_for_a_log() -> None:
    assert unknown_names(["a", "b\n", "c" * 500], {"a"}) == (r"b\n", "c" * 60)
    assert len(unknown_names(map(str, range(1000)), ())) == 20


def test_refuse_names_the_key_unless_it_is_null() -> None:
    refuse({"functions": None}, {"functions": "use tools"})
    with pytest.raises(ParameterError, match="functions: use tools"):
        refuse({"functions": []}, {"functions": "use tools"})


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def test_plain_json_takes_what_every_encoder_takes() -> None:
    value = {"a": [1, -(2**63), 2**64 - 1, 1.5, None, True, "x"], "b": nested(90)}
    assert plain_json(value, "x") is value
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(value)) == value
    assert msgspec.json.decode(json_text(value, "x")) == value


@pytest.mark.parametrize("value", [nested(200), [2**64], {"a": [[-(2**63) - 1]]}], ids=["deep", "large", "small"])
def test_plain_json_refuses_the_rest(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"^x: (is nested|holds an integer)"):
        plain_json(value, "x")


def test_renamed_gives_the_name_that_the_client_used() -> None:
    with pytest.raises(ParameterError) as caught, renamed({"max_tokens": "max_completion_tokens"}):
        raise ParameterError("max_tokens", "no")
    assert (caught.value.param, caught.value.problem) == ("max_completion_tokens", "no")


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", errors="surrogatepass")))
def test_any_bytes_are_an_object_or_one_line(body: bytes) -> None:
    problem = ""
    try:
        assert isinstance(json_object(body), dict)
    except InvalidRequestError as exc:
        problem = str(exc)
    assert "\n" not in problem
