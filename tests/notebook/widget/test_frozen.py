from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core import Message, ToolCall
from nbllm.notebook.tree import Tree, Turn
from nbllm.notebook.widget.attachments import Attachment, as_text
from nbllm.notebook.widget.frozen import MAX_BYTES, Bundles, bundle
from nbllm.store.chats import MAX_BUNDLE_BYTES
from tests.markup.attacks import FRAGMENTS
from tests.markup.rendering import read, with_marked, with_mistune
from tests.notebook.hostile import CORPUS
from tests.notebook.widget.conversing import attacked, tree_of

ID = "20261122-0a1b2c3d4e5f"


def words(html: str) -> str:
    return " ".join("".join(read(html).texts).split())


def foreign(html: str) -> list[str]:
    """Elements that neither Markdown nor a quiet line is made of."""
    return [found for found in read(html).foreign if found != "small"]


def frozen(path: list[Turn], title: str = "chat-1") -> str:
    return bundle(title, path, ID)["text/markdown"]


def test_chat_is_there_to_be_read() -> None:
    tree = tree_of(
        ("Hello *you*", "**Hi** there"), ("How?\n  So?\n\nYes", "- a\n- b"), system="Be kind.", model="smollm2"
    )
    found = bundle(tree.name, tree.path(), ID)
    html = with_mistune(found["text/markdown"])
    assert words(html) == (
        "chat-1 · smollm2 · 2026-11-22 system Be kind. Hello *you* Hi there How? So? Yes a b "
        f"To go on with this chat, run a cell with %load_ext nbllm and below it %llm chat {ID}"
    )
    assert "How?<br>" in html.replace("<br />", "<br>")
    assert found["text/plain"] == (
        "chat-1 · smollm2 · 2026-11-22\n\nsystem: Be kind.\n\n> Hello *you*\n\n**Hi** there\n\n"
        "> How?\n>   So?\n>\n> Yes\n\n- a\n- b\n\n"
        f"To go on with this chat, run a cell with %load_ext nbllm and below it %llm chat {ID}"
    )


def test_empty_chat_says_so() -> None:
    found = bundle("chat-1", [], ID)
    parts = [
        "chat-1 · 2026-11-22",
        "No messages yet.",
        "To go on with a chat, run a cell with %load_ext nbllm and below it %llm chat",
    ]
    assert found["text/plain"].split("\n\n") == parts
    assert words(with_mistune(found["text/markdown"])) == " ".join(parts)


def test_chat_without_a_name_has_a_heading() -> None:
    assert frozen([], title="\x1b[31m ").startswith("**Chat**")


def test_thoughts_are_folded() -> None:
    tree = Tree("x")
    tree.add(Message("user", "a"), Message("assistant", "b", reasoning="```\nhm"), parent=None)
    reader = read(with_mistune(frozen(tree.path())))
    assert reader.elements.count("details") == 1
    assert "Thoughts" in "".join(reader.texts)
    assert "hm" not in bundle("x", tree.path(), ID)["text/plain"]


@pytest.mark.parametrize(
    ("reason", "note"),
    [("length", "cut short"), ("interrupted", "stopped here"), ("timeout", "time limit"), ("error", "an error")],
)
def test_ending_is_noted(reason: str, note: str) -> None:
    path = tree_of(("a", ""), finish_reason=reason).path()
    assert note in words(with_mistune(frozen(path)))
    assert note in bundle("x", path, ID)["text/plain"]


def test_answer_without_text_says_so() -> None:
    assert "no text" in frozen(tree_of(("a", " ")).path())


def test_tool_calls_and_their_results_are_named() -> None:
    tree = Tree("x")
    answer = Message("assistant", "", tool_calls=(ToolCall("1", "weather", "{}"),))
    after = [Message("tool", "<sunny>", tool_call_id="1"), Message("assistant", "It is *sunny*.")]
    tree.add(Message("user", "a"), answer, parent=None, finish_reason="tool_calls", after=after)
    assert "asks for a tool · calls weather tool <sunny> It is sunny." in words(with_mistune(frozen(tree.path())))


def test_models_are_named_where_they_differ() -> None:
    tree = tree_of(("a", "b"), model="one")
    assert "b one" not in words(with_mistune(frozen(tree.path())))
    tree.add(Message("user", "c"), Message("assistant", "d"), parent=tree.head, model="two")
    text = words(with_mistune(frozen(tree.path())))
    assert "chat-1 · one, two ·" in text
    assert "a b one c d two" in text


def test_files_are_named_and_not_shown() -> None:
    path = tree_of((as_text("What is b?", [Attachment("data.csv", "secret"), Attachment("<b>.md", "")]), "2")).path()
    found = bundle("x", path, ID)
    assert "What is b? with data.csv, <b>.md 2" in words(with_mistune(found["text/markdown"]))
    assert "> What is b?\n> (with data.csv, <b>.md)" in found["text/plain"]
    assert "secret" not in str(found)


def test_every_character_of_a_question_means_itself() -> None:
    question = "    <b>*a*</b>  `x`   $y$ \\n\n\tz\n\n# h\n1. i\n===\n| a |\n|---|"
    html = with_mistune(frozen(tree_of((question, "ok")).path())).partition("ok")[0]
    assert words(html.replace("\N{NO-BREAK SPACE}", " ")).count(" ".join(question.split())) == 1
    assert not {"h1", "ol", "pre", "em", "table"} & set(read(html).elements)


def test_marks_of_direction_in_a_question_are_visible() -> None:
    assert "U&#43;202E" in frozen(tree_of(("a\u202eb", "ok")).path())


@pytest.mark.parametrize("attack", CORPUS.values(), ids=CORPUS)
def test_attack_stays_text(attack: str) -> None:
    path = attacked([attack, "benign"])
    assert foreign(with_mistune(bundle(attack, path, ID)["text/markdown"])) == []


def test_attacks_stay_text_in_marked() -> None:
    chats = [bundle(attack, attacked([attack, "benign"]), ID)["text/markdown"] for attack in CORPUS.values()]
    assert [html for html in with_marked(chats) if foreign(html)] == []


def test_all_attacks_in_one_chat_stay_text() -> None:
    assert foreign(with_mistune(frozen(attacked(CORPUS.values())))) == []


@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=10).map("".join), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_mixes_stay_text(texts: list[str]) -> None:
    assert foreign(with_mistune(frozen(attacked(texts)))) == []


@given(st.lists(st.text(st.characters(codec=None)), min_size=1, max_size=3))
def test_any_text_can_be_saved_with_a_notebook(texts: list[str]) -> None:
    found = bundle(texts[0], attacked(texts), ID)
    assert json.dumps(found, ensure_ascii=False).encode()
    assert all(
        char.isprintable() or char in "\n\t\N{NO-BREAK SPACE}" for char in frozen(attacked(["\x1b]0;x\x07\x9b"]))
    )


def size(found: dict[str, str]) -> int:
    return len(json.dumps(found, ensure_ascii=False).encode())


@pytest.mark.parametrize("piece", ["x", "$", "☃", '"', "\n", "```\n"], ids=repr)
def test_turns_that_are_too_long_are_cut(piece: str) -> None:
    text = piece * 300_000
    path = tree_of(("first", "one"), (text, text), ("last", "two")).path()
    found = bundle("x", path, ID)
    assert size(found) < MAX_BYTES < MAX_BUNDLE_BYTES
    assert "characters left out" in found["text/plain"]
    assert found["text/plain"].startswith("x ·")
    assert "> last\n\ntwo\n\nTo go on" in found["text/plain"]


def test_oldest_turns_of_a_long_chat_are_left_out() -> None:
    path = tree_of(*((f"question {number}", "$" * 20_000) for number in range(20))).path()
    found = bundle("x", path, ID)
    assert MAX_BYTES * 0.7 < size(found) < MAX_BYTES
    plain = found["text/plain"]
    num_shown = plain.count("> question")
    assert 0 < num_shown < 20
    assert f"Left out here, for length: {20 - num_shown} earlier turns." in plain
    assert f"> question {20 - num_shown}\n" in plain
    assert "> question 19\n" in plain


def test_messages_without_end_are_left_out() -> None:
    tree = Tree("x", "$" * 100_000)
    others = [Message("system", "$" * 100_000) for _ in range(300)]
    tree.add(Message("user", "$" * 100_000), Message("assistant", "ok"), parent=None, after=others)
    found = bundle("x", tree.path(), ID)
    assert "280 messages left out here" in found["text/plain"]
    assert size(found) < MAX_BYTES


def test_growing_chat_is_shown_as_a_whole_one() -> None:
    bundles = Bundles()
    tree = tree_of(("a", "b"), model="one")
    assert bundles.bundle("x", tree.path(), ID) == bundle("x", tree.path(), ID)
    tree.add(Message("user", "c"), Message("assistant", "d"), parent=tree.head, model="two")
    assert bundles.bundle("x", tree.path(), ID) == bundle("x", tree.path(), ID)
    tree.undo()
    assert bundles.bundle("y", tree.path(), ID) == bundle("y", tree.path(), ID)
