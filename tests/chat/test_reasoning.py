from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.chat.reasoning import ReasoningSplitter, Split


def split(pieces: list[str], open_at_start: bool = False, tags: tuple[str, str] = ("<think>", "</think>")) -> Split:
    splitter = ReasoningSplitter(open_at_start, tags)
    parts = [splitter.push(piece) for piece in pieces] + [splitter.finish()]
    return Split("".join(part.reasoning for part in parts), "".join(part.content for part in parts))


CASES = {
    "no tags": ("hello", False, ("", "hello")),
    "block": ("<think>\nhm\n</think>\n\nyes", False, ("hm", "yes")),
    "white space before": (" \n<think>hm</think>yes", False, ("hm", "yes")),
    "white space without tags": ("  yes ", False, ("", "  yes ")),
    "empty block": ("<think>\n\n</think>\n\nyes", False, ("", "yes")),
    "later tag is content": ("a <think>b</think>", False, ("", "a <think>b</think>")),
    "second block is content": ("<think>a</think>b<think>c</think>", False, ("a", "b<think>c</think>")),
    "open at start": ("hm\n</think>\nyes", True, ("hm", "yes")),
    "open and written again": ("<think>hm</think>yes", True, ("hm", "yes")),
    "never closed": ("<think>hm ", False, ("hm", "")),
    "never closed, open at start": (" hm", True, ("hm", "")),
    "cut in the opening tag": ("<thi", False, ("", "<thi")),
    "cut in the closing tag": ("<think>a </thi", False, ("a </thi", "")),
    "only white space": (" \n", False, ("", " \n")),
    "nothing": ("", False, ("", "")),
}


@pytest.mark.parametrize(("text", "open_at_start", "expected"), CASES.values(), ids=CASES.keys())
def test_split_of_whole_text(text: str, open_at_start: bool, expected: tuple[str, str]) -> None:
    assert split([text], open_at_start) == expected
    assert split(list(text), open_at_start) == expected


def test_other_tags() -> None:
    assert split(["[THINK]a[/THI", "NK]b"], tags=("[THINK]", "[/THINK]")) == ("a", "b")


def test_text_is_given_as_soon_as_it_cannot_be_a_tag() -> None:
    splitter = ReasoningSplitter()
    assert splitter.push("<th") == ("", "")
    assert splitter.push("e end") == ("", "<the end")
    assert splitter.push(" <think>") == ("", " <think>")


def test_in_reasoning_follows_the_tags() -> None:
    splitter = ReasoningSplitter()
    states = [splitter.in_reasoning]
    for piece in ("<think>", "a", "</think>", "b"):
        splitter.push(piece)
        states.append(splitter.in_reasoning)
    assert states == [False, True, True, False, False]
    assert ReasoningSplitter(open_at_start=True).in_reasoning


tokens = st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "think>", " ", "\n", "a", "b "]), max_size=12)


@given(tokens, st.data(), st.booleans())
def test_any_cut_gives_the_same(parts: list[str], data: st.DataObject, open_at_start: bool) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces, open_at_start) == split([text], open_at_start)
