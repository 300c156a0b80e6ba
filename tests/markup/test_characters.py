from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbllm.markup.characters import NormalizedStream, PlainStream, encodable, normalized, plain_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a\tb\nc é 漢 🙂", "a\tb\nc é 漢 🙂", id="kept"),
        pytest.param("<b>**x**", "<b>**x**", id="raw"),
        pytest.param("a\x1b[31;1mb\x1b[0m", "ab", id="colour"),
        pytest.param("\x1b[2J\x1b[Ha", "a", id="clear"),
        pytest.param("\x1b]0;title\x07a\x1b]52;c;eA==\x1b\\b", "ab", id="osc"),
        pytest.param("\x1b]8;;http://e.x\x1b\\a\x1b]8;;\x1b\\", "a", id="hyperlink"),
        pytest.param("\x9b31ma\x9d0;t\x9cb", "ab", id="c1"),
        pytest.param("\x1bPq\x1b\\a\x1bc\x1b(Bb", "ab", id="dcs_and_reset"),
        pytest.param("\x1b]0;never closed", "]0;never closed", id="unterminated"),
        pytest.param("rm -rf\rls\r\nb", "rm -rf\nls\nb", id="carriage_return"),
        pytest.param("a\x08\x07\x00\x7fb", "ab", id="c0"),
        pytest.param("a\ud800", "a\ufffd", id="surrogate"),
    ],
)
def test_plain_text_of(text: str, expected: str) -> None:
    assert plain_text(text) == expected


@given(st.text(st.sampled_from("\x1b[]P\\;0mqA\x07\x9b\x9c\x9d\x90\r\n\t")))
def test_plain_text_of_sequences_holds_no_control(text: str) -> None:
    assert all(character.isprintable() or character in "\n\t" for character in plain_text(text))


@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1b[0;", "\x1b"])
def test_many_unterminated_sequences_end(piece: str) -> None:
    assert "\x1b" not in plain_text(piece * 100_000)


def test_encodable_replaces_halves_of_characters_and_nothing_else() -> None:
    text = "a\r\n\x00\x1b\u2028é🙂"
    assert encodable(f"{text}\ud83d") == f"{text}\ufffd"


@given(st.lists(st.text(st.sampled_from("a\n\r\x00\x1b\u2028\x85\ud800"), max_size=3), max_size=12))
def test_normalized_stream_is_normalized_of_the_whole(pieces: list[str]) -> None:
    stream = NormalizedStream()
    assert "".join(map(stream.push, pieces)) == normalized("".join(pieces))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param(["a\r", "\nb"], ["a\n", "b"], id="cut_in_a_break"),
        pytest.param(["a\r", "", "\n", "\n"], ["a\n", "", "", "\n"], id="nothing_between"),
        pytest.param(["a\r", "\r", "\nb"], ["a\n", "\n", "b"], id="two_breaks"),
        pytest.param(["\n", "\nb"], ["\n", "\nb"], id="no_return"),
    ],
)
def test_normalized_stream_gives(pieces: list[str], expected: list[str]) -> None:
    stream = NormalizedStream()
    assert [stream.push(piece) for piece in pieces] == expected


@example(["\r\x9d\x07\n"])  # a sequence between the two characters of a line break
@given(st.lists(st.text(st.sampled_from("ab\n\r\t\x1b[]\\\x07\x9b31m\u2028\x85\x9d")), max_size=8))
def test_plain_stream_is_plain_text_of_the_whole(pieces: list[str]) -> None:
    stream = PlainStream()
    for end, piece in enumerate(pieces, 1):
        stream.push(piece)
        assert stream.text() == plain_text("".join(pieces[:end]))
