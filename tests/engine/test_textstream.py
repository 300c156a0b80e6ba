"""The text does not depend on how it was cut into pieces."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.engine.textstream import StopStream, Utf8Stream

_T = TypeVar("_T", str, bytes)
_cuts = st.lists(st.integers(0, 200), max_size=12)
_LETTERS = st.text("ab\n<", max_size=40)


def _pieces(whole: _T, cuts: Sequence[int]) -> list[_T]:
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    return [whole[start:stop] for start, stop in itertools.pairwise(places)]


@given(st.binary(max_size=60), _cuts)
def test_bytes_give_the_same_text_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    stream = Utf8Stream()
    assert "".join(map(stream.push, _pieces(data, cuts))) + stream.finish() == data.decode("utf-8", errors="replace")


def test_character_appears_once_it_is_whole() -> None:
    stream = Utf8Stream()
    assert [stream.push(bytes([byte])) for byte in "€".encode()] == ["", "", "€"]


def test_half_a_character_at_the_end_is_replaced() -> None:
    stream = Utf8Stream()
    assert stream.push("€".encode()[:2]) == ""
    assert stream.finish() == "\ufffd"


def _first_stop(text: str, stops: Sequence[str]) -> str | None:
    """What stands before the stop that is complete first; None when there is none."""
    for end in range(len(text) + 1):
        found = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: min(found)]
    return None


@given(_LETTERS, st.lists(st.text("ab\n<", min_size=1, max_size=4), max_size=3), _cuts)
def test_stop_ends_the_text_at_the_same_place_in_any_pieces(text: str, stops: list[str], cuts: list[int]) -> None:
    stream = StopStream(stops)
    said = "".join(map(stream.push, _pieces(text, cuts)))
    wanted = _first_stop(text, stops)
    if wanted is None:
        assert said + stream.finish() == text
        assert stream.stopped_by is None
    else:
        assert said == wanted
        assert stream.stopped_by in stops
        assert stream.push("more") == ""


@pytest.mark.parametrize(
    ("pushed", "said"),
    [
        pytest.param("one END", "one ", id="a stop at once"),
        pytest.param("one E", "one ", id="what may become one is held"),
        pytest.param("one x", "one x", id="what cannot is not"),
    ],
)
def test_stop_holds_back_only_what_may_become_one(pushed: str, said: str) -> None:
    assert StopStream(["END"]).push(pushed) == said


def test_held_text_comes_out_at_the_end() -> None:
    stream = StopStream(["END"])
    assert stream.push("EN") + stream.finish() == "EN"
