"""`NodeStream`, and the cuts that it makes."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nbllm.markup import topblocks
from nbllm.markup.characters import normalized
from nbllm.markup.nodeparser import parsed
from nbllm.markup.nodes import Node, NodeStream, nodes
from nbllm.markup.nodetree import NodeTree
from tests.markup.attacks import FRAGMENTS

LINES = [
    "```",
    "~~~",
    "```python",
    "\n   ```\n",
    "\n  ~~~\n",
    "\n",
    "\n",
    "\n\n",
    "\n\n",
    " ",
    "  ",
    "   ",
    "    ",
    "\t",
]
LINES += [
    "- ",
    "* ",
    "1. ",
    "2) ",
    "2. ",
    "  - ",
    "10. ",
    "> ",
    "a",
    "b c",
    "-",
    "***",
    "---",
    "===",
    "# h",
    "`",
    "- - -",
]
LINES += ["|", "a|b", "\n|-|\n", "|-|-|", "$$", "\n$$\n", "\\[", "\\]"]
TEXTS = st.lists(st.sampled_from(LINES) | st.sampled_from(FRAGMENTS), max_size=25).map("".join)


def pushed(*pieces: str) -> list[list[Node]]:
    """What each piece closes, and at last what the end does."""
    stream = NodeStream()
    return [*(stream.push(piece) for piece in pieces), stream.finish()]


def joined(*pieces: str) -> list[Node]:
    return list(chain.from_iterable(pushed(*pieces)))


@given(TEXTS, st.data())
@settings(max_examples=250, deadline=None)
def test_any_split_gives_the_same_as_the_whole(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)) | {0, len(text)})
    assert joined(*(text[start:end] for start, end in pairwise(cuts))) == nodes(text)


@given(TEXTS)
@example("text\n2. foo\n  ```\n# x\n  ```\n\n# y")
@example(" - `\n  -\n   ```\n\n.")
@example("1. a\n   ```\n   x\n   ```\ntext\n2. b\n   ```\n# c\n   ```\n")
@example("```|\n--\n```\n1")
@example("# |\n-|")
@example("$$\n- a $$\n  ```\n# x\n  ```")
@settings(max_examples=400, deadline=None)
def test_parts_give_the_same_as_the_parser_makes_of_the_whole(text: str) -> None:
    assert nodes(text) == NodeTree(parsed(normalized(text))).nodes


@pytest.mark.parametrize("text", ["a\r\nb\r\rc\r\n\r\n```\r\nx\r\n```\r\n\r\n- a\r\n\r\nb"])
def test_single_characters_give_the_same_as_the_whole(text: str) -> None:
    assert joined(*text) == nodes(text)


@pytest.mark.parametrize(
    ("pieces", "counts"),
    [
        pytest.param(["a\n", "b\n", "\n"], [0, 0, 1, 0], id="paragraph"),
        pytest.param(["a\n", "===", "\n\n"], [0, 0, 1, 0], id="heading by its underline"),
        pytest.param(["a | b\n", "-|-\n", "\n"], [0, 0, 1, 0], id="table"),
        pytest.param(["# a", "\n"], [0, 1, 0], id="heading"),
        pytest.param(["a\n", "# b\n"], [0, 2, 0], id="heading after a paragraph"),
        pytest.param(["a\n", "```\n", "b\n\nc\n", "```", "\n"], [0, 1, 0, 0, 1, 0], id="fence"),
        pytest.param(["```\nx\n", "```x\n"], [0, 0, 1], id="open fence"),
        pytest.param(["a:\n", "- b\n", "- c\n\n", "  d\n\n", "e"], [0, 1, 0, 0, 1, 1], id="list"),
        pytest.param(["1. a\n\n", "1", "23", ". b\n\n", "12 c"], [0, 0, 0, 0, 1, 1], id="number that may be an item's"),
        pytest.param(["- a\n\n", "*", "*b**"], [0, 0, 1, 1], id="star that may be an item's"),
        pytest.param(["1. a\n\n   ```\n", "   b\n\n", "   ```\n\n", "c"], [0, 0, 0, 1, 1], id="fence in a list"),
        pytest.param(["    a\n\n", "  ", "  b\n\n", "  ", "c"], [0, 0, 0, 0, 1, 1], id="indented code"),
        pytest.param(["- a\n", "> b\n"], [0, 1, 1], id="quote after a list"),
    ],
)
def test_block_is_given_out_when_it_is_closed(pieces: list[str], counts: list[int]) -> None:
    assert [len(found) for found in pushed(*pieces)] == counts


def test_tail_is_the_source_of_what_is_open() -> None:
    stream = NodeStream()
    stream.push("a\n\n- b\x00\r")
    assert stream.tail == "- b\n"
    stream.push("\n- c")
    assert stream.tail == "- b\n- c"
    stream.finish()
    assert stream.tail == ""


def test_open_fence_at_the_end_is_code() -> None:
    stream = NodeStream()
    assert stream.push("```py\nx = 1\n``") == []
    assert stream.finish()[0][1] == {"class": "nbllm-code", "data-language": "py"}


def test_block_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import nbllm.markup.nodes as module

    seen: list[str] = []

    def noted(source: str) -> list[object]:
        seen.append(source)
        return []

    monkeypatch.setattr(module, "parsed", noted)
    pushed(*("first\n\n" + "- item\n" * 20 + "\nsecond\n\n" + "```\n" + "x\n" * 20))
    assert seen == ["first\n\n", "- item\n" * 20 + "\n", "second\n\n", "```\n" + "x\n" * 20]


def test_parser_is_seldom_asked_where_a_cut_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def noted(source: str) -> bool:
        asked.append(source)
        return False

    monkeypatch.setattr(topblocks, "ends_in_fence", noted)
    nodes("1. a\n   ```\n   x\n   ```\n2. b\n\n   ```\n   y\n   ```\n")
    assert not asked
    nodes("a\n2. b\n" + "  ```\n  x\n" * 100)
    assert len(asked) == 8
