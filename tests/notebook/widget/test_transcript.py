from __future__ import annotations

from unittest.mock import patch

from nbllm.core import Message, Timings, Usage
from nbllm.markup.nodes import nodes
from nbllm.notebook.tree import Tree, Turn
from nbllm.notebook.widget import transcript as module
from nbllm.notebook.widget.attachments import Attachment, as_text
from nbllm.notebook.widget.transcript import Transcript, live_question
from nbllm.session.response import Response


def said(tree: Tree, question: str, answer: str, parent: Turn | None = None) -> Turn:
    return tree.add(Message("user", question), Message("assistant", answer), parent=parent, model="toy")


def test_answer_that_was_cut_says_so_where_nothing_else_is_known() -> None:
    tree = Tree("chat-1")
    tree.add(Message("user", "Why?"), Message("assistant", "Be"), parent=None, finish_reason="length")
    assert Transcript().of(tree)[1]["footer"] == "cut short (length)"


def test_turn_is_a_question_and_an_answer() -> None:
    tree = Tree("chat-1")
    said(tree, "Why?", "*Because*", None)
    question, answer = Transcript().of(tree)
    assert question == {
        "id": "1q",
        "turn": 1,
        "role": "user",
        "text": "Why?",
        "attachments": [],
        "branches": None,
    }
    assert answer == {
        "id": "1a",
        "turn": 1,
        "role": "assistant",
        "text": "*Because*",
        "blocks": nodes("*Because*"),
        "reasoning": "",
        "model": "toy",
        "footer": "",
        "ending": "stop",
        "live": "",
    }


def test_answer_of_this_widget_has_its_live_id_and_figures() -> None:
    tree, transcript = Tree("chat-1"), Transcript()
    turn = said(tree, "Why?", "Because")
    response = Response(
        text="Because", usage=Usage(prompt_tokens=10, completion_tokens=5), timings=Timings(first_token_s=0.25)
    )
    transcript.note(turn, response, live="a1", context_length=100, blocks=[["p", {}, "as it came"]])
    answer = transcript.of(tree)[1]
    assert answer["live"] == "a1"
    assert answer["footer"] == "10 tokens in, 5 out · first token after 0.25 s · 15% of the context"
    assert answer["blocks"] == [["p", {}, "as it came"]]


def test_only_the_active_path_is_shown_and_branches_are_numbered() -> None:
    tree = Tree("chat-1")
    first = said(tree, "one", "1")
    said(tree, "two", "2", first)
    other = said(tree, "three", "3", first)
    messages = Transcript().of(tree)
    assert [message["id"] for message in messages] == ["1q", "1a", "3q", "3a"]
    assert messages[0]["branches"] is None
    assert messages[2]["branches"] == {"index": 1, "turns": [2, 3]}
    said(tree, "root", "4", None)
    tree.goto(other)
    assert Transcript().of(tree)[0]["branches"] == {"index": 0, "turns": [1, 4]}


def test_answer_that_is_shown_already_is_not_taken_apart_again() -> None:
    tree, transcript = Tree("chat-1"), Transcript()
    first = said(tree, "one", "1")
    before = transcript.of(tree)
    said(tree, "two", "2", first)
    with patch.object(module, "nodes", wraps=nodes) as made:
        after = transcript.of(tree)
    assert [call.args for call in made.call_args_list] == [("2",)]
    assert after[1] is before[1]


def test_files_are_names_and_not_a_part_of_the_text() -> None:
    tree = Tree("chat-1")
    content = as_text("What is this?", [Attachment("data.csv", "a,b\n1,2\n")])
    said(tree, content, "A table")
    question = Transcript().of(tree)[0]
    assert (question["text"], question["attachments"]) == ("What is this?", [{"name": "data.csv"}])
    assert live_question("a1", content) == {**question, "id": "a1q", "turn": None}


def test_what_a_page_cannot_carry_is_replaced() -> None:
    tree = Tree("chat \ud83d")
    said(tree, "half \ud83d", "a \ud83d character\x00")
    assert repr(Transcript().of(tree)).count("\N{REPLACEMENT CHARACTER}") == 3


def test_conversation_without_turns_is_empty() -> None:
    assert Transcript().of(Tree("chat-1", "Be brief.")) == []
