"""What a reader sees of conversations."""

from __future__ import annotations

import html
import re

import mistune
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core import FinishReason, Message
from nbllm.notebook.conversations import Conversations
from nbllm.notebook.history import brief, inert, overview, render
from nbllm.notebook.tree import Tree, Turn

NASTY = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a | b || c \\| d",
    "[click](javascript:alert(1)) ![x](https://evil.example/x.png)",
    "`code` **bold** $x$ \\(y\\) ~~gone~~ &lt; &amp;",
    "https://evil.example www.evil.example a@evil.example",
    "# heading",
    "- [ ] item",
    "@@0@@ ~~~",
]


def run(
    tree: Tree, cell: str | None, execution: int, question: str, answer: str = "ok", reason: FinishReason = "stop"
) -> Turn:
    return tree.add(
        Message("user", question),
        Message("assistant", answer),
        parent=tree.place(cell, execution),
        cell=cell,
        execution=execution,
        finish_reason=reason,
    )


def table(markdown: str) -> list[list[str]]:
    """The texts of a rendered table's body, which holds no element but its own and emphasis."""
    render_html = mistune.create_markdown(escape=False, plugins=["table", "url", "strikethrough"])
    page = str(render_html(markdown))
    tags = set(re.findall(r"</?([a-z0-9]+)", page))
    assert tags <= {"p", "table", "thead", "tbody", "tr", "th", "td", "em", "span"}, page
    rows = re.findall(r"<tr>(.*?)</tr>", page.partition("<tbody>")[2], re.DOTALL)
    return [
        [html.unescape(re.sub("<.*?>", "", cell)) for cell in re.findall("<td[^>]*>(.*?)</td>", row)] for row in rows
    ]


def test_branches_are_indented_and_marked() -> None:
    tree = Tree("chat-1", "Be brief.")
    run(tree, "A", 1, "Hi", "Hello.")
    run(tree, "B", 2, "Old?", "Yes", "interrupted")
    run(tree, "C", 3, "Older?")
    run(tree, "B", 4, "New?", "No")
    plain, markdown = render(tree)
    assert plain.splitlines() == [
        "chat-1: 2 turns · 2 stale · system: Be brief.",
        "1 [1] Hi → Hello.",
        "    2 [2] Old? → Yes  (interrupted, stale)",
        "    3 [3] Older? → ok  (stale)",
        "4 [4] New? → No  (current)",
    ]
    assert table(markdown) == [
        ["1", "[1]", "Hi", "Hello.", ""],
        ["↳ 2", "[2]", "Old?", "Yes", "interrupted, stale"],
        ["↳ 3", "[3]", "Older?", "ok", "stale"],
        ["4", "[4]", "New?", "No", "current"],
    ]


def test_branches_of_branches() -> None:
    tree = Tree("chat-1")
    for execution, cell in enumerate("ABCBA", 1):
        run(tree, cell, execution, cell)
    plain, _ = render(tree)
    assert plain.splitlines()[1:] == [
        "    1 [1] A → ok  (stale)",
        "        2 [2] B → ok  (stale)",
        "        3 [3] C → ok  (stale)",
        "    4 [4] B → ok  (stale)",
        "5 [5] A → ok  (current)",
    ]


def test_undone_turn_stays_in_its_line() -> None:
    tree = Tree("chat-1")
    run(tree, "A", 1, "Hi")
    run(tree, "B", 2, "Oops", "")
    tree.undo()
    assert render(tree)[0].splitlines() == [
        "chat-1: 1 turn · 1 stale",
        "1 [1] Hi → ok  (current)",
        "2 [2] Oops → (no text)  (stale)",
    ]


def test_opened_file_has_no_cells() -> None:
    tree = Tree.of_messages("old", [Message("user", "Hi"), Message("assistant", "Hello.")])
    assert render(tree)[0].splitlines()[1] == "1 [ ] Hi → Hello.  (current)"


def test_nothing_yet() -> None:
    assert render(Tree("bob"))[0] == "bob: no turns yet"
    plain, markdown = overview(Conversations())
    assert plain == "no conversations yet: ask something with %%chat"
    assert html.unescape(markdown) == plain


@pytest.mark.parametrize("text", NASTY)
def test_every_text_is_literal(text: str) -> None:
    tree = Tree(text, text, is_named=True)
    run(tree, "A", 1, text, text)
    _, markdown = render(tree)
    assert "<" not in re.sub(r"<span>&#\d+;</span>", "", markdown)
    assert table(markdown) == [["1", "[1]", brief(text), brief(text), "current"]]
    conversations = Conversations()
    conversations.commit(tree)
    assert table(overview(conversations)[1]) == [[text, f"1 turn · system: {brief(text)}", "current"]]


def test_terminal_sequences_do_not_reach_a_terminal() -> None:
    tree = Tree("chat-1")
    run(tree, "A", 1, "a\x1b]0;title\x07b\x1b[2Jc\nd\u2028e\x85f", "\x9b31m\x00red\ud800")
    plain, markdown = render(tree)
    assert plain.splitlines()[1] == "1 [1] abc d e f → red\N{REPLACEMENT CHARACTER}  (current)"
    assert "title" not in markdown


def test_long_texts_are_cut() -> None:
    assert brief("x" * 61) == "x" * 59 + "…"
    assert brief("x" * 60) == "x" * 60
    assert brief("a \n" * 20) == " ".join("a" * 20)
    assert brief(" " * 5000 + "late") == "…"
    assert brief("x" * 10**7) == "x" * 59 + "…"


@given(st.text())
def test_inert_text_is_one_line_of_known_characters(text: str) -> None:
    line = inert(brief(text))
    assert re.fullmatch(r"(?:[^\W_]|[ ,…→·]|&#[0-9]+;|<span>&#[0-9]+;</span>)*", line)
    assert html.unescape(re.sub(r"</?span>", "", line)) == brief(text)


def test_overview_lists_every_conversation() -> None:
    conversations = Conversations()
    for name, system in (("bob", "Be brief."), ("eve", None)):
        tree, parent = conversations.choose(name=name, system=system)
        conversations.record(tree, parent, Message("user", "Hi"), Message("assistant", "Hello."))
    conversations.get("bob").undo()
    assert overview(conversations)[0].splitlines() == [
        "bob: 0 turns · 1 stale · system: Be brief.",
        "eve: 1 turn  (current)",
    ]


def test_many_nested_branches_are_no_deep_recursion() -> None:
    tree = Tree("chat-1")
    parent = None
    for _ in range(1500):
        branch = tree.add(Message("user", "?"), Message("assistant", "!"), parent=parent)
        tree.add(Message("user", "?"), Message("assistant", "!"), parent=parent)
        parent = branch
    plain, markdown = render(tree)
    assert len(plain.splitlines()) == 3001
    assert max(map(len, markdown.splitlines())) < 100
