"""The words in which two texts differ."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.frames.compare.diff import Span, word_diff

_TEXTS = st.text(alphabet="ab, .\n東京é", max_size=60)


@pytest.mark.parametrize(
    ("old", "new", "spans"),
    [
        pytest.param("a cat sat", "a cat sat", [("same", "a cat sat")], id="equal"),
        pytest.param("", "", [], id="empty"),
        pytest.param("", "new", [("added", "new")], id="all_new"),
        pytest.param("old", "", [("removed", "old")], id="all_gone"),
        pytest.param(
            "a cat sat",
            "a dog sat",
            [("same", "a "), ("removed", "cat "), ("added", "dog "), ("same", "sat")],
            id="word",
        ),
        pytest.param("yes.", "yes!", [("same", "yes"), ("removed", "."), ("added", "!")], id="punctuation"),
        pytest.param("a  b", "a\nb", [("same", "a\nb")], id="white_space_is_none"),
        pytest.param(
            "東京都", "東北都", [("same", "東"), ("removed", "京"), ("added", "北"), ("same", "都")], id="east_asian"
        ),
    ],
)
def test_word_diff_of(old: str, new: str, spans: list[tuple[str, str]]) -> None:
    assert word_diff(old, new) == spans


@given(_TEXTS, _TEXTS)
def test_word_diff_holds_both_texts(old: str, new: str) -> None:
    spans = word_diff(old, new)
    assert _joined(spans, "same", "added") == new
    assert _squeezed(_joined(spans, "same", "removed")) == _squeezed(old)


def test_word_diff_of_very_long_texts_keeps_the_common_ends() -> None:
    words = [str(number) for number in range(6_000)]
    mixed = words.copy()
    random.Random(0).shuffle(mixed)
    spans = word_diff(" ".join(["x", *words, "y"]), " ".join(["x", *mixed, "y"]))
    assert [span.kind for span in spans] == ["same", "removed", "added", "same"]


def _joined(spans: list[Span], *kinds: str) -> str:
    return "".join(span.text for span in spans if span.kind in kinds)


def _squeezed(text: str) -> str:
    return "".join(text.split())
