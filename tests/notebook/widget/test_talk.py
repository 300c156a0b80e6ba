"""A chat without a page: questions, stops, failures, branches, and whatever comes at the same time."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core import Chunk, GenerateRequest, Message
from nbllm.errors import (
    ContextOverflowError,
    EngineClosedError,
    EngineDeadError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    ParameterError,
)
from nbllm.notebook.conversations import Conversations
from nbllm.notebook.tree import Tree
from nbllm.notebook.widget import answering
from nbllm.notebook.widget.attachments import Attachment, split
from nbllm.notebook.widget.book import TreeBook
from nbllm.notebook.widget.events import Begun, Came, Ended, Event
from nbllm.notebook.widget.talk import Talk
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine, toy_engine
from tests.loaded import smollm2
from tests.notebook.widget.talking import AskedEngine, Page, Rack

__all__ = ["smollm2"]


class Chat:
    """A Talk over a scripted model, with a page that keeps its events."""

    def __init__(self, **options: Any) -> None:
        self.engine = AskedEngine()
        self.rack = Rack(lambda: self.engine)
        self.books = Conversations()
        self.page = Page()
        self.talk = Talk(TreeBook(self.books), self.rack, on_event=self.page, **options)

    def say(self, text: str = "Hi", answer: Any = "Hello.") -> Ended:
        """Ask, and wait for the end."""
        self.engine.enqueue(answer)
        self.talk.send(text)
        return self.end()

    def hang(self, text: str = "Hi", *pieces: str) -> None:
        """Ask what is answered until it is stopped, and wait for the first piece, or for the engine to be asked."""
        self.page.events.clear()
        self.engine.was_asked.clear()
        self.engine.enqueue(pieces, until_cancelled=True)
        self.talk.send(text)
        if pieces:
            self.page.until(Came)
        assert self.engine.was_asked.wait(20)

    def end(self) -> Ended:
        assert self.talk.wait(20)
        return self.page.ended

    @property
    def tree(self) -> Tree:
        return self.talk.book.tree

    @property
    def path(self) -> list[str]:
        return [text for turn in self.tree.path() for text in (turn.question.content, turn.answer.content)]

    @property
    def sent(self) -> list[str]:
        """The messages of the last request."""
        request = self.engine.requests[-1]
        assert isinstance(request, GenerateRequest)
        return [message.content for message in request.messages or ()]


@pytest.fixture
def chat() -> Chat:
    return Chat()


# ---- asking


def test_question_is_answered_and_told_in_order(chat: Chat) -> None:
    ended = chat.say("Hi", ["Hel", "lo."])
    assert chat.page.kinds == [*("Begun", "Phase", "Phase", "Phase", "Phase"), *("Came", "Came", "Ended", "Phase")]
    assert chat.page.phases == ["waiting", "loading", "waiting", "answering", "idle"]
    assert (ended.turn, ended.error, ended.draft) == (chat.tree.head, "", "")
    assert ended.response is chat.talk.last
    assert chat.path == ["Hi", "Hello."]
    begun = chat.page.events[0]
    assert isinstance(begun, Begun)
    assert (begun.live, begun.question.content, begun.parent) == (ended.live, "Hi", None)


def test_next_question_carries_the_turns_before(chat: Chat) -> None:
    first = chat.say("Hi").turn
    chat.say("And?", "Fine.")
    assert chat.sent == ["Hi", "Hello.", "And?"]
    assert chat.tree.head is not None
    assert chat.tree.head.parent is first
    assert "loading" not in chat.page.phases[5:]
    used, length = chat.talk.context
    assert (used > 10, length) == (True, 4096)


def test_context_is_unknown_where_nothing_was_asked(chat: Chat) -> None:
    assert chat.talk.context == (0, 0)
    chat.say()
    chat.talk.new()
    assert chat.talk.context == (0, 4096)
    turn = chat.books.record(chat.tree, None, Message("user", "a"), Message("assistant", "b"))
    assert chat.tree.head is turn
    assert chat.talk.context == (0, 0)


@pytest.mark.parametrize("text", ["", " \n", None, 3, b"x"], ids=repr)
def test_nothing_to_ask_is_refused(chat: Chat, text: Any) -> None:
    with pytest.raises(InvalidRequestError):
        chat.talk.send(text)
    assert (chat.talk.phase, chat.page.events) == ("idle", [])


def test_second_question_is_refused_while_one_is_answered(chat: Chat) -> None:
    chat.say()
    chat.hang("Tell", "On")
    commands: list[Callable[[], None]] = [
        lambda: chat.talk.send("b"),
        chat.talk.regenerate,
        lambda: chat.talk.edit(1, "b"),
        chat.talk.new,
        lambda: chat.talk.open("chat-1"),
    ]
    for command in commands:
        with pytest.raises(InvalidRequestError, match="wait for the answer, or stop it"):
            command()
    assert chat.talk.phase == "answering"
    assert not chat.talk.wait(0.01)
    chat.talk.stop()
    assert chat.end().turn is chat.tree.head


def test_files_go_with_the_question_and_stay_when_it_is_edited(chat: Chat) -> None:
    chat.engine.enqueue("3")
    chat.talk.send("Mean?", [Attachment("a.csv", "a\n3\n")])
    turn = chat.end().turn
    assert turn is not None
    assert split(turn.question.content) == ("Mean?", ("a.csv",))
    assert isinstance(begun := chat.page.events[0], Begun)
    assert begun.attachments == ("a.csv",)
    chat.engine.enqueue("4")
    chat.talk.edit(1, "Sum?")
    assert (edited := chat.end().turn) is not None
    assert edited.question.content == turn.question.content.replace("Mean?", "Sum?")
    assert edited.parent is turn.parent


def test_files_alone_are_a_question_and_get_a_text_by_an_edit(chat: Chat) -> None:
    for text in ("", "What is it?", ""):
        chat.engine.enqueue("A file.")
        if chat.tree.head is None:
            chat.talk.send(text, [Attachment("a.txt", "content")])
        else:
            chat.talk.edit(chat.tree.head.number, text)
        assert (turn := chat.end().turn) is not None
        assert split(turn.question.content) == (text, ("a.txt",))


# ---- branches


def test_regenerate_of_an_older_turn_makes_a_branch(chat: Chat) -> None:
    chat.say("a", "1")
    chat.say("b", "2")
    chat.say("c", "3")
    chat.engine.enqueue("again")
    chat.talk.regenerate(2)
    turn = chat.end().turn
    assert turn is not None
    assert (chat.sent, chat.path) == (["a", "1", "b"], ["a", "1", "b", "again"])
    assert [one.number for one in chat.tree.siblings(turn)] == [2, 4]
    chat.talk.branch(2)
    assert chat.path == ["a", "1", "b", "2", "c", "3"]
    assert chat.page.kinds[-1] == "Changed"


def test_regenerate_without_a_number_is_of_the_last(chat: Chat) -> None:
    with pytest.raises(InvalidRequestError, match="ask something first"):
        chat.talk.regenerate()
    chat.say("a", "1")
    chat.engine.enqueue("2")
    chat.talk.regenerate()
    assert chat.end().draft == ""
    assert chat.path == ["a", "2"]


def test_edit_makes_a_branch_with_the_new_text(chat: Chat) -> None:
    chat.say("a", "1")
    chat.say("b", "2")
    chat.engine.enqueue("3")
    chat.talk.edit(1, "c")
    chat.end()
    assert (chat.sent, chat.path) == (["c"], ["c", "3"])
    assert len(chat.tree.turns) == 3


@pytest.mark.parametrize("number", [0, -1, 2, 10**30, "1", None], ids=repr)
def test_turn_that_is_not_there_is_refused(chat: Chat, number: Any) -> None:
    chat.say()
    for command in (chat.talk.branch, lambda turn: chat.talk.edit(turn, "x")):
        with pytest.raises(InvalidRequestError, match="there is no turn"):
            command(number)
    assert chat.talk.phase == "idle"


def test_what_a_cell_says_meanwhile_is_not_lost(chat: Chat) -> None:
    first = chat.say("a", "1").turn
    chat.hang("b", "2")
    cell = chat.books.record(chat.tree, first, Message("user", "cell"), Message("assistant", "ok"))
    assert chat.page.kinds[-1] == "Changed"
    chat.talk.stop()
    turn = chat.end().turn
    assert turn is not None
    assert (turn.parent, cell.parent) == (first, first)
    assert chat.tree.head is turn
    assert len(chat.tree.turns) == 3
    chat.engine.enqueue("3")
    chat.talk.send("c")
    assert chat.end().turn is chat.books.current.head if chat.books.current else None


def test_change_by_another_is_told_after_the_end_of_an_answer(chat: Chat) -> None:
    """A page that drew the conversation in between would show the answer twice."""
    others = threading.Thread(target=lambda: chat.tree.tell())

    def in_between() -> None:
        if not others.ident:
            others.start()
            others.join()

    chat.tree.watch(in_between)
    chat.say()
    assert chat.page.kinds[-3:] == ["Ended", "Phase", "Changed"]
    assert chat.page.kinds.count("Changed") == 1


# ---- stopping


def test_stop_in_decode_keeps_the_text(chat: Chat) -> None:
    chat.hang("Count", "1, ", "2")
    chat.talk.stop()
    ended = chat.end()
    assert (ended.error, ended.turn) == ("", chat.tree.head)
    assert chat.tree.head is not None
    assert (chat.tree.head.answer.content, chat.tree.head.finish_reason) == ("1, 2", "interrupted")
    assert chat.talk.phase == "idle"


def test_stop_before_the_first_word_gives_the_question_back(chat: Chat) -> None:
    chat.hang("Count")
    chat.talk.stop()
    ended = chat.end()
    assert (ended.turn, ended.error, ended.draft) == (None, "", "Count")
    assert chat.tree.turns == ()


def test_stop_while_the_model_is_loaded_asks_nothing(chat: Chat) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def load() -> None:
        loading.set()
        go_on.wait(20)

    chat.rack.on_load = load
    files = (Attachment("a.txt", "x"),)
    chat.talk.send("Hi", files)
    assert loading.wait(20)
    assert chat.talk.phase == "loading"
    chat.talk.stop()
    chat.talk.stop()
    go_on.set()
    ended = chat.end()
    assert (ended.turn, ended.response, ended.error) == (None, None, "")
    assert (ended.draft, ended.attachments) == ("Hi", files)
    assert chat.engine.requests == []
    assert chat.say().turn is not None  # the model is there now
    assert len(chat.rack.engines) == 1


def test_stop_after_the_end_is_harmless(chat: Chat) -> None:
    chat.talk.stop()
    chat.say()
    chat.talk.stop()
    assert chat.say("b").turn is not None


def test_stop_does_not_wait_for_an_engine_that_hangs(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_LAST_WORDS_S", 0.01)
    chat.hang("Hi", "Hel")
    chat.engine.tickets[-1].pending.clear()
    chat.talk.stop()
    assert chat.end().turn is chat.tree.head
    assert chat.tree.head is not None
    assert (chat.tree.head.answer.content, chat.tree.head.finish_reason) == ("Hel", "interrupted")


def test_interrupt_of_the_kernel_does_not_touch_the_answer(chat: Chat) -> None:
    chat.hang("Hi", "Hel")
    with pytest.raises(KeyboardInterrupt):
        _wait_interrupted(chat)
    began = time.thread_time()
    assert not chat.talk.wait(0.3)
    assert time.thread_time() - began < 0.15, "it waits, and does not look again and again"
    assert chat.talk.phase == "answering"
    chat.talk.stop()
    assert chat.end().turn is not None


def _wait_interrupted(chat: Chat) -> None:
    threading.Timer(0.05, _thread.interrupt_main).start()
    chat.talk.wait()


# ---- failures


def _raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(ModelLoadError("it is\ndamaged: get it again"), "it is damaged: get it again", id="ours"),
        pytest.param(OSError(5, "I/O"), "OSError: [Errno 5] I/O", id="system"),
        pytest.param(ValueError(), "ValueError", id="no text"),
    ],
)
def test_load_that_fails_is_one_line_and_the_question_comes_back(chat: Chat, error: Exception, line: str) -> None:
    chat.rack.on_load = _raising(error)
    chat.talk.send("Hi")
    ended = chat.end()
    assert (ended.error, ended.draft, ended.turn, ended.response) == (line, "Hi", None, None)
    assert (chat.talk.error, chat.talk.phase) == (line, "idle")
    chat.rack.on_load = lambda: None
    assert chat.say().error == chat.talk.error == ""


def test_model_that_is_not_there_is_named() -> None:
    chat = Chat(model="missing")
    assert "the closest names: toy" in chat.say().error
    with pytest.raises(ModelNotFoundError):
        chat.talk.choose_model("missing")
    chat.talk.choose_model("toy")
    assert chat.say().turn is not None


@pytest.mark.parametrize("has_history", [True, False], ids=["long", "first"])
def test_context_overflow_says_what_to_do(chat: Chat, has_history: bool) -> None:
    if has_history:
        chat.say()
    ended = chat.say("long", ContextOverflowError(5000, 4096))
    assert "load the model with context_length=5632" in ended.error
    assert ("a new conversation begins with an empty context" in ended.error) == has_history
    assert ended.draft == "long"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(
            EngineDeadError("a step failed"), "a step failed: ask again, and the model is loaded again", id="d"
        ),
        pytest.param(
            EngineClosedError("x"), "the model was closed meanwhile: ask again, and it is loaded again", id="c"
        ),
        pytest.param(RuntimeError("boo"), "RuntimeError: boo", id="other"),
    ],
)
def test_failure_half_way_keeps_the_text(chat: Chat, error: Exception, line: str) -> None:
    ended = chat.say("Hi", ["Hel", error])
    assert (ended.error, ended.draft) == (line, "")
    assert ended.turn is not None
    assert (ended.turn.answer.content, ended.turn.finish_reason) == ("Hel", "error")
    assert ended.response is not None
    assert ended.response.error is error


@pytest.mark.parametrize(
    ("last", "error"),
    [
        pytest.param(Chunk(finish_reason="stop"), "the model ended without a word", id="stop"),
        pytest.param(Chunk(reasoning="hm", finish_reason="length"), "allow more max_tokens", id="length"),
        pytest.param(Chunk(finish_reason="timeout"), "allow more time", id="timeout"),
    ],
)
def test_answer_without_a_word_is_no_turn_and_says_why(chat: Chat, last: Chunk, error: str) -> None:
    ended = chat.say("Hi", [last])
    assert (ended.turn, ended.draft) == (None, "Hi")
    assert error in ended.error


def _closed(chat: Chat) -> None:
    chat.rack.all_loaded()[0].close()


def _dead(chat: Chat) -> None:
    chat.engine.enqueue(EngineDeadError("gone"))


@pytest.mark.parametrize("by_object", [False, True], ids=["by name", "given"])
@pytest.mark.parametrize("harm", [_closed, _dead])
def test_model_that_is_gone_between_two_questions_is_loaded_again(
    harm: Callable[[Chat], None], by_object: bool
) -> None:
    chat = Chat()
    engines = [chat.engine, AskedEngine()]
    chat.rack = Rack(lambda: engines[len(chat.rack.engines)])
    given = chat.rack.load("toy") if by_object else None
    chat.talk = Talk(TreeBook(chat.books), chat.rack, model=given, on_event=chat.page)
    chat.say()
    harm(chat)
    chat.engine, harmed = engines[1], chat.engine
    assert chat.say("b", "Back.").error == ""
    assert (chat.path, harmed.is_closed) == (["Hi", "Hello.", "b", "Back."], True)
    assert chat.talk.model is chat.rack.all_loaded()[0]
    assert chat.say("c").turn is not None
    assert len(chat.rack.engines) == 2


def test_model_that_died_half_way_is_loaded_again_by_the_next_question() -> None:
    chat = Chat()
    chat.rack = Rack(AskedEngine)
    chat.talk = Talk(TreeBook(chat.books), chat.rack, on_event=chat.page)
    chat.rack.load("toy")
    chat.engine = chat.rack.engines[0]
    chat.say("a", ["Hel", EngineDeadError("gone")])
    assert chat.rack.all_loaded() == []
    chat.rack.load("toy")
    chat.engine = chat.rack.engines[1]
    assert chat.say("b").error == ""


def test_page_that_fails_does_not_end_the_answer(chat: Chat, caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        chat.page(event)
        raise RuntimeError("the page is gone")

    chat.talk = Talk(chat.talk.book, chat.rack, on_event=fail)
    chat.say()
    chat.say("b", "c")
    assert chat.path == ["Hi", "Hello.", "b", "c"]
    assert "Begun could not be shown" in caplog.text


def test_answer_that_cannot_be_kept_is_an_error(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TreeBook, "record", lambda *_, **__: _raising(MemoryError("no room"))())
    ended = chat.say()
    assert (ended.turn, ended.error) == (None, "the answer was not kept: MemoryError: no room")
    assert (ended.draft, chat.talk.phase) == ("Hi", "idle")


# ---- settings, conversations


@pytest.mark.parametrize(
    "values",
    [{"temperature": -1}, {"nonsense": 1}, {"n": 2}, {"tools": [len]}, {"continue_final": True}, {"system": 3}],
    ids=lambda values: next(iter(values)),
)
def test_setting_that_does_not_fit_changes_nothing(chat: Chat, values: dict[str, Any]) -> None:
    chat.talk.set_options({"seed": 3})
    with pytest.raises(ParameterError):
        chat.talk.set_options({"seed": 4, **values})
    with pytest.raises(ParameterError):
        Chat(options=values)
    assert chat.talk.options == {"seed": 3}


def test_settings_hold_from_the_next_question_on(chat: Chat) -> None:
    chat.talk.set_options({"temperature": 0.5, "seed": 3, "stop": ["x"]})
    chat.talk.set_options({"seed": None})
    chat.say()
    request = chat.engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    assert (request.sampling.temperature, request.sampling.seed, request.sampling.stop) == (0.5, None, ("x",))


def test_changed_system_message_goes_on_in_cells_and_can_be_taken_back(chat: Chat) -> None:
    tree = chat.books.commit(Tree("brief", "Be brief.", is_named=True))
    chat.talk.open("brief")
    chat.say("a", "1")
    assert chat.talk.system == "Be brief."
    chat.talk.set_options({"system": "Be loud."})
    chat.say("b", "2")
    assert chat.sent == ["Be loud.", "a", "1", "b"]
    place, parent = chat.books.choose()
    assert place.messages(parent)[0].content == "Be loud."
    chat.talk.set_options({"system": None})
    assert chat.talk.system == "Be brief."
    chat.engine.enqueue("3")
    chat.talk.regenerate()
    chat.end()
    assert chat.sent == ["Be brief.", "a", "1", "b"]
    chat.talk.set_options({"system": ""})
    chat.say("c", "4")
    assert chat.sent[0] == "a"
    assert tree.system == "Be brief."


def test_system_message_of_one_conversation_is_not_taken_into_another(chat: Chat) -> None:
    chat.say()
    chat.talk.set_options({"system": "Be a pirate.", "seed": 1})
    chat.talk.new()
    chat.say("a", "Arr.")
    assert chat.sent == ["Be a pirate.", "a"]
    chat.talk.open("chat-1")
    assert (chat.talk.system, chat.talk.options) == ("", {"seed": 1})


def test_new_open_and_rename(chat: Chat) -> None:
    chat.say("a", "1")
    first = chat.tree
    chat.talk.new()
    assert chat.page.kinds[-1] == "Changed"
    assert chat.books.current is chat.tree is not first
    chat.talk.rename("second")
    assert chat.talk.book.conversations() == ["chat-1", "second"]
    with pytest.raises(InvalidRequestError, match="already"):
        chat.talk.rename("chat-1")
    chat.talk.open("chat-1")
    assert chat.path == ["a", "1"]
    with pytest.raises(InvalidRequestError, match="closest names"):
        chat.talk.open("chat-9")
    assert chat.tree is first
    num_events = len(chat.page.events)
    chat.books.get("second").tell()
    assert len(chat.page.events) == num_events  # it is not shown any more
    chat.say("b", "2")


def test_another_model_answers_from_the_next_question_on(chat: Chat) -> None:
    assert (chat.talk.model_name, chat.talk.model, chat.talk.info) == ("toy", None, None)
    chat.hang("a", "1")
    chat.talk.choose_model("other")
    chat.talk.stop()
    chat.end()
    assert (chat.talk.model_name, chat.talk.model) == ("other", None)
    chat.say("b")
    assert len(chat.rack.engines) == 2
    given = Model(ScriptedEngine())
    chat.talk.choose_model(given)
    assert (chat.talk.model, chat.talk.model_name, chat.talk.info) == (given, "toy", given.info)


# ---- the end


def test_close_keeps_what_came_and_refuses_more(chat: Chat) -> None:
    chat.hang("Hi", "Hel")
    chat.talk.close()
    ended = chat.end()
    assert ended.turn is chat.tree.head
    assert chat.page.phases[-1] == chat.talk.phase == "closed"
    chat.talk.close()
    chat.talk.stop()
    commands: list[Callable[[], None]] = [
        lambda: chat.talk.send("b"),
        chat.talk.new,
        lambda: chat.talk.branch(1),
        chat.talk.regenerate,
    ]
    for command in commands:
        with pytest.raises(InvalidRequestError, match="closed"):
            command()
    num_events = len(chat.page.events)
    chat.tree.tell()
    assert len(chat.page.events) == num_events


def test_page_may_ask_and_wait_from_within_an_event(chat: Chat) -> None:
    waited: list[bool] = []

    def go_on(event: Event) -> None:
        chat.page(event)
        if isinstance(event, Ended) and len(chat.tree.turns) < 3:
            waited.append(chat.talk.wait())
            chat.talk.send(f"{len(chat.tree.turns)}")

    chat.talk = Talk(chat.talk.book, chat.rack, on_event=go_on)
    for answer in "bc":
        chat.engine.enqueue(answer)
    chat.say("a", "d")
    assert chat.path == ["a", "b", "1", "c", "2", "d"]
    assert waited == [False, False]
    ends = [kind for kind in chat.page.kinds if kind in ("Begun", "Ended")]
    assert ends == ["Begun", "Ended"] * 3


_COMMANDS = ("send", "regenerate", "edit", "branch", "stop", "new", "open", "rename", "options", "cell", "undo", "wait")


def _do(chat: Chat, command: str, number: int) -> None:
    talk = chat.talk
    commands: dict[str, Callable[[], object]] = {
        "send": lambda: talk.send(f"q{number}"),
        "regenerate": lambda: talk.regenerate(number or None),
        "edit": lambda: talk.edit(number, "edited"),
        "branch": lambda: talk.branch(number),
        "stop": talk.stop,
        "new": talk.new,
        "open": lambda: talk.open(f"chat-{number}"),
        "rename": lambda: talk.rename(f"chat-{number}"),
        "options": lambda: talk.set_options({"system": "s" * number or None}),
        "cell": lambda: chat.books.record(
            *chat.books.choose(new=number == 1), Message("user", "cell"), Message("assistant", "ok")
        ),
        "undo": lambda: chat.tree.undo(),
        "wait": lambda: talk.wait(1),
    }
    try:
        commands[command]()
    except InvalidRequestError:
        return


_steps = st.lists(st.tuples(st.sampled_from(_COMMANDS), st.integers(0, 4)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(one=_steps, other=_steps, hangs=st.lists(st.booleans(), min_size=24, max_size=24))
def test_whatever_two_threads_do_nothing_is_lost(
    one: list[tuple[str, int]], other: list[tuple[str, int]], hangs: list[bool]
) -> None:
    chat = Chat()
    for index, hang in enumerate(hangs):
        chat.engine.enqueue(["a", str(index)], until_cancelled=hang)
    failures: list[BaseException] = []

    def run(steps: list[tuple[str, int]]) -> None:
        try:
            for command, number in steps:
                # A question that is answered until it is stopped would hold the others up.
                if command == "wait":
                    chat.talk.stop()
                _do(chat, command, number)
        except BaseException as error:  # noqa: BLE001  # for the test's own thread to say
            failures.append(error)

    threads = [threading.Thread(target=run, args=(steps,)) for steps in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chat.talk.stop()
    assert chat.talk.wait(20)
    assert failures == []
    _check(chat)


def _check(chat: Chat) -> None:
    """Each question has one end, each answer is a turn, and each conversation is a tree."""
    lives = [event.live for event in chat.page.events if isinstance(event, Begun | Ended)]
    assert lives[::2] == lives[1::2]
    assert len(set(lives)) * 2 == len(lives)
    ends = [event for event in chat.page.events if isinstance(event, Ended)]
    turns = {turn for tree in chat.books.trees() for turn in tree.turns}
    assert {ended.turn for ended in ends if ended.turn is not None} <= turns
    begun = [event for event in chat.page.events if isinstance(event, Begun)]
    for start, ended in zip(begun, ends, strict=True):  # a question is a turn's, or given back
        is_kept = any(turn.question is start.question for turn in turns)
        assert is_kept or ended.draft == start.question.content
    assert chat.talk.phase == "idle"
    assert chat.books.names() == [tree.name for tree in chat.books.trees()]
    for tree in chat.books.trees():
        assert [turn.number for turn in tree.turns] == list(range(1, len(tree.turns) + 1))
        assert all(turn.parent is None or tree.turns[turn.parent.number - 1] is turn.parent for turn in tree.turns)
        assert tree.head is None or tree.head in tree.turns


# ---- real engines


def test_real_engine_is_stopped_and_asked_again() -> None:
    page = Page()
    engine = toy_engine(ends=-1000.0)
    try:
        talk = Talk(TreeBook(Conversations()), Rack(), model=Model(engine), on_event=page)
        talk.send("Hi")
        page.until(Came)
        talk.stop()
        assert talk.wait(20)
        first = page.ended
        assert first.turn is not None
        assert first.turn.finish_reason == "interrupted"
        engine.close()
        talk.send("And?")
        assert talk.wait(20)
        assert "the script is at its end" in page.ended.error  # the rack's own model was loaded in its place
    finally:
        engine.close()


@pytest.mark.model
def test_real_model_is_stopped_in_decode_and_answers_again(smollm2: Model) -> None:
    page = Page()
    talk = Talk(TreeBook(Conversations()), Rack(), model=smollm2, options={"seed": 1, "max_tokens": 400}, on_event=page)
    talk.send("Count from one to two hundred, in words.")
    page.until(Came)
    talk.stop()
    assert talk.wait(60)
    first = page.ended.turn
    assert first is not None
    assert first.finish_reason == "interrupted"
    talk.set_options({"max_tokens": 4, "temperature": 0})
    talk.regenerate()
    assert talk.wait(60)
    assert (again := page.ended.turn) is not None
    assert (again.parent, again.question, again.finish_reason) == (None, first.question, "length")
    used, length = talk.context
    assert (used > 4, length) == (True, smollm2.info.context_length)
