from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.errors import EngineError
from nbllm.wire import sse
from nbllm.wire.sse import SseParser


def parsed(pieces: list[bytes]) -> list[str]:
    parser = SseParser()
    return [data for piece in pieces for data in parser.push(piece)] + parser.finish()


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    marks = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(marks)]


json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@settings(max_examples=50, deadline=None)
@given(st.lists(json_values | st.just("ping"), max_size=6), st.lists(st.integers(0, 10_000), max_size=8))
def test_events_come_back_however_they_are_cut(values: list[object], cuts: list[int]) -> None:
    stream = b"".join(sse.PING if value == "ping" else sse.event(msgspec.json.encode(value)) for value in values)
    expected = [value for value in values if value != "ping"]
    assert [msgspec.json.decode(data) for data in parsed(cut(stream + sse.DONE, cuts))[:-1]] == expected


lines = st.sampled_from(
    ["", "data: a", "data:b", "data", ": ping", "event: x", "id: 1", "data:  c", "data: ü😀", "nonsense"]
)
ends = st.sampled_from(["\n", "\r", "\r\n"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(lines, ends), max_size=12), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_cut_gives_the_same_with_any_line_ends(parts: list[tuple[str, str]], cuts: list[int]) -> None:
    stream = "".join(line + end for line, end in parts).encode()
    assert parsed(cut(stream, cuts)) == parsed([stream])


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_are_taken(stream: bytes, cuts: list[int]) -> None:
    assert parsed(cut(stream, cuts)) == parsed([stream])


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"data: a\ndata: b\n\n", ["a\nb"], id="two lines of data"),
        pytest.param(b"data: a\r\n\r\ndata: b\r\r", ["a", "b"], id="carriage returns"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", ["a"], id="byte order mark"),
        pytest.param(b"data\n\n", [""], id="data without a value"),
        pytest.param(b"event: x\nid: 3\n\n", [], id="no data"),
        pytest.param(b":\n\n:\n\n", [], id="pings"),
        pytest.param(b"data: \xff\n\n", ["\ufffd"], id="not UTF-8"),
        pytest.param(b"data: a", ["a"], id="closed in the middle of a line"),
        pytest.param(b"data: a\n", ["a"], id="closed before the empty line"),
        pytest.param(b"data: a\n\n", ["a"], id="closed after it"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_parser_reads(stream: bytes, expected: list[str]) -> None:
    assert parsed([stream]) == expected
    assert parsed([bytes([byte]) for byte in stream]) == expected


def test_empty_piece_between_the_halves_of_a_line_end_changes_nothing() -> None:
    parser = SseParser()
    assert [event for piece in (b"data: a\r", b"", b"\ndata: b\r\n\r\n") for event in parser.push(piece)] == ["a\nb"]


def test_event_is_given_as_soon_as_it_is_whole() -> None:
    parser = SseParser()
    assert parser.push(b"data: a\r\n\r") == ["a"]
    assert parser.push(b"\ndata: b\n") == []
    assert parser.push(b"\n") == ["b"]


@pytest.mark.parametrize(
    "piece", [b"data: aaaaaaa", b"data: aaaaaaa\n", b": aaaaaaaaaaa"], ids=["line", "lines", "comment"]
)
def test_event_beyond_the_limit_is_an_error(piece: bytes) -> None:
    parser = SseParser(limit=64)
    for _ in range(3):
        assert parser.push(piece) == []
    with pytest.raises(EngineError, match="more than 64 bytes"):
        parser.push(piece * 12)


def test_limit_is_of_an_event_and_not_of_the_stream() -> None:
    parser = SseParser(limit=64)
    for _ in range(50):
        assert parser.push(b": a comment\ndata: aaaa\n\n") == ["aaaa"]
        assert parser.push(b": a comment\n") == []
