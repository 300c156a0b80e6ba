from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.markup.safe import safe_markdown
from nbllm.markup.stream import SafeStream
from tests.markup.attacks import FRAGMENTS


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join), st.data())
@settings(max_examples=150, deadline=None)
def test_any_split_gives_the_same_as_the_whole(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)) | {0, len(text)})
    stream = SafeStream()
    for start, end in pairwise(cuts):
        stream.push(text[start:end])
        assert stream.markdown() == safe_markdown(text[:end])
    assert stream.markdown() == safe_markdown(text)


@pytest.mark.parametrize("text", ["a\r\nb\r\rc\r\n\r\n```\r\n<x\r\n"])
def test_single_characters_give_the_same_as_the_whole(text: str) -> None:
    stream = SafeStream()
    for index, character in enumerate(text):
        stream.push(character)
        assert stream.markdown() == safe_markdown(text[: index + 1])


def test_open_fence_is_shown_closed() -> None:
    stream = SafeStream()
    stream.push("a\n```py\nx <")
    assert stream.markdown() == "a\n\n```py\nx <\n```\n"
    stream.push(" 1\n")
    assert stream.markdown() == "a\n\n```py\nx < 1\n```\n"


def test_finished_blocks_are_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import nbllm.markup.blocks as blocks

    seen: list[str] = []

    def noted(lines: list[str]) -> list[str]:
        seen.extend(lines)
        return lines

    monkeypatch.setattr(blocks, "safe_lines", noted)
    stream = SafeStream()
    stream.push("first\n\nsecond\n\n")
    for _ in range(5):
        stream.push("x")
        stream.markdown()
    assert seen.count("first") == seen.count("second") == 1
