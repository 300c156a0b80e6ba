"""Where a chat's turns are kept."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core import Message
from nbllm.errors import InvalidRequestError
from nbllm.notebook.conversations import Conversations
from nbllm.notebook.tree import Tree, Turn
from nbllm.notebook.widget.book import Book, ConversationBook, TreeBook
from nbllm.session.conversation import Conversation
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine


def say(book: Book, text: str, parent: Turn | None = None, beginning: list[Message] | None = None) -> Turn:
    return book.record(
        parent,
        Message("user", text),
        Message("assistant", text.upper()),
        finish_reason="stop",
        model="toy",
        beginning=beginning,
    )


def path(tree: Tree) -> list[str]:
    return [turn.question.content for turn in tree.path()]


# ---- among the notebook's conversations


@pytest.fixture
def books() -> Conversations:
    return Conversations()


def test_what_one_says_the_other_sees(books: Conversations) -> None:
    book = TreeBook(books, default_system="Be brief.")
    tree, parent = books.choose(default_system="Be brief.")
    books.record(tree, parent, Message("user", "cell"), Message("assistant", "ok"))
    assert path(book.tree) == ["cell"]
    turn = say(book, "widget", book.tree.head)
    assert (turn.model, turn.finish_reason) == ("toy", "stop")
    tree, parent = books.choose()
    assert parent is turn
    assert [message.content for message in tree.messages(parent)][:2] == ["Be brief.", "cell"]


def test_book_goes_on_with_the_current_or_the_given_conversation(books: Conversations) -> None:
    first = TreeBook(books)
    say(first, "a")
    assert TreeBook(books).tree is first.tree
    other = TreeBook(books, Tree("talk", is_named=True))
    assert books.current is other.tree
    assert (other.name, other.conversations()) == ("talk", ["chat-1", "talk"])


def test_new_open_and_rename_of_a_tree_book(books: Conversations) -> None:
    book = TreeBook(books, default_system="Be brief.")
    say(book, "a")
    book.new("Be loud.")
    assert (book.name, book.tree.system, books.current) == ("chat-2", "Be loud.", book.tree)
    book.new(None)
    assert (book.name, book.tree.system) == ("chat-2", "Be brief.")  # nothing was said in it yet
    book.rename("talk")
    assert book.conversations() == ["chat-1", "talk"]
    book.open("chat-1")
    assert (path(book.tree), books.current) == (["a"], book.tree)
    with pytest.raises(InvalidRequestError):
        book.open("nothing")
    assert book.name == "chat-1"


def test_forgotten_conversation_is_still_shown(books: Conversations) -> None:
    book = TreeBook(books)
    say(book, "a")
    books.reset()
    say(book, "b", book.tree.head)
    assert (path(book.tree), book.conversations(), books.names()) == (["a", "b"], ["chat-1"], [])


# ---- in an nbllm.Conversation


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def conversation(engine: ScriptedEngine) -> Conversation:
    return Model(engine).conversation(system="Be brief.", name="talk")


def said(conversation: Conversation) -> list[str]:
    return [message.content for message in conversation.history]


def ask(engine: ScriptedEngine, conversation: Conversation, text: str) -> None:
    engine.enqueue(text.upper())
    conversation.send(text)


def test_conversation_and_tree_stay_in_step(engine: ScriptedEngine, conversation: Conversation) -> None:
    ask(engine, conversation, "a")
    book = ConversationBook(conversation)
    first = book.tree.head
    assert (book.name, path(book.tree)) == ("talk", ["a"])
    say(book, "b", first)
    assert said(conversation) == ["Be brief.", "a", "A", "b", "B"]
    ask(engine, conversation, "c")
    assert path(book.tree) == ["a", "b", "c"]
    again = say(book, "d", first)
    assert said(conversation) == ["Be brief.", "a", "A", "d", "D"]
    assert book.tree.siblings(again) == (book.tree.turns[1], again)
    book.tree.goto(book.tree.turns[1])
    assert said(conversation) == ["Be brief.", "a", "A", "b", "B", "c", "C"]


def test_undo_steps_back_in_the_tree_too(engine: ScriptedEngine, conversation: Conversation) -> None:
    book = ConversationBook(conversation)
    for text in "ab":
        ask(engine, conversation, text)
    conversation.undo()
    assert path(book.tree) == ["a"]
    conversation.undo()
    assert (book.tree.head, said(conversation)) == (None, ["Be brief."])
    assert len(book.tree.turns) == 2
    ask(engine, conversation, "a")
    assert book.tree.head is book.tree.turns[0]  # the same again is no other turn
    book.tree.undo()
    assert said(conversation) == ["Be brief."]


def test_changed_beginning_is_in_the_history(engine: ScriptedEngine, conversation: Conversation) -> None:
    book = ConversationBook(conversation)
    first = say(book, "a")
    say(book, "b", first, [Message("system", "Be loud.")])
    assert said(conversation) == ["Be loud.", "a", "A", "b", "B"]
    conversation.undo()
    assert said(conversation) == ["Be loud.", "a", "A"]
    assert [message.content for message in book.tree.messages(book.tree.head)] == said(conversation)


def test_what_is_no_turn_stays_in_the_history(conversation: Conversation) -> None:
    odd = [
        Message("system", "s"),
        Message("assistant", "x"),
        *(Message("user", "a"), Message("assistant", "A"), Message("tool", "t"), Message("user", "lone")),
    ]
    conversation.swap(conversation.history, odd)
    book = ConversationBook(conversation)
    say(book, "b", book.tree.head)
    assert said(conversation) == ["s", "x", "a", "A", "t", "lone", "b", "B"]
    conversation.swap(conversation.history, [])
    assert (book.tree.head, book.tree.beginning, said(conversation)) == (None, (), [])


def test_new_and_rename_of_a_conversation_book(conversation: Conversation) -> None:
    book = ConversationBook(conversation)
    say(book, "a")
    book.new(None)
    assert said(conversation) == ["Be brief."]
    book.new("Be loud.")
    assert said(conversation) == ["Be loud."]
    book.rename(" draft ")
    assert (conversation.name, book.name, book.conversations()) == ("draft", "draft", ["draft"])
    book.open("draft")
    with pytest.raises(InvalidRequestError, match="ChatWidget"):
        book.open("chat-1")
    with pytest.raises(InvalidRequestError):
        book.rename("")


def test_closed_book_follows_no_more(engine: ScriptedEngine, conversation: Conversation) -> None:
    book = ConversationBook(conversation)
    book.close()
    book.close()
    ask(engine, conversation, "a")
    assert book.tree.turns == ()


def test_two_books_of_one_conversation_agree(engine: ScriptedEngine, conversation: Conversation) -> None:
    one, other = ConversationBook(conversation), ConversationBook(conversation)
    first = say(one, "a")
    say(one, "b", first)
    ask(engine, conversation, "c")
    say(one, "d", first)
    assert path(one.tree) == path(other.tree) == ["a", "d"]
    other.tree.goto(other.tree.turns[1])
    assert path(one.tree) == path(other.tree) == ["a", "b", "c"]
    assert (len(one.tree.turns), len(other.tree.turns)) == (4, 4)


_texts = st.lists(st.text("ab", min_size=1, max_size=2), max_size=6)


@settings(max_examples=40, deadline=None)
@given(in_widget=_texts, in_cells=_texts, is_branch=st.lists(st.booleans(), min_size=6, max_size=6))
def test_two_threads_that_speak_lose_nothing(in_widget: list[str], in_cells: list[str], is_branch: list[bool]) -> None:
    engine = ScriptedEngine()
    conversation = Model(engine).conversation()
    book = ConversationBook(conversation)
    for _ in in_cells:
        engine.enqueue("cell")

    def speak() -> None:
        for text in in_cells:
            conversation.send(text)

    cells = threading.Thread(target=speak)
    cells.start()
    turns = [
        say(book, text, book.tree.head if not branch else None)
        for text, branch in zip(in_widget, is_branch, strict=False)
    ]
    cells.join()
    assert set(turns) <= set(book.tree.turns)
    asked = [turn.question.content for turn in book.tree.turns if turn.answer.content == "cell"]
    assert set(asked) == set(in_cells)
    assert list(conversation.history) == book.tree.messages(book.tree.head)


def test_answer_that_comes_before_a_cells_turn_is_known_keeps_both(caplog: pytest.LogCaptureFixture) -> None:
    engine = ScriptedEngine()
    conversation = Model(engine).conversation()
    answers: list[object] = []

    def answer_once() -> None:
        if not answers:
            answers.append(say(book, "widget"))

    conversation.watch(answer_once)  # told before the book is
    book = ConversationBook(conversation)
    engine.enqueue("cell")
    conversation.send("in a cell")
    assert {turn.question.content for turn in book.tree.turns} == {"in a cell", "widget"}
    assert list(conversation.history) == book.tree.messages(book.tree.head)
    assert not caplog.records
