"""The widget in a shell without a page, and with one that is a fake comm."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comm
import pytest

from nbllm.core import Chunk
from nbllm.errors import InvalidRequestError, ModelNotFoundError, ParameterError
from nbllm.notebook.extension import unload_ipython_extension
from nbllm.notebook.widget import exits
from nbllm.notebook.widget.chat_widget import ChatWidget
from nbllm.notebook.widget.place import Place
from nbllm.notebook.widget.shelf import Shelf
from nbllm.session.conversation import Conversation
from nbllm.session.response import Response
from tests.notebook.conftest import Notebook
from tests.notebook.test_cells import ask, desk

VIEW = "application/vnd.jupyter.widget-view+json"


class Page:
    """A front end on the other side of every comm."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.is_closed = False
        self.changed = threading.Condition()
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._widget = ""

    def comm(self, **options: Any) -> Comm:
        made = Comm(self, f"comm-{len(self._handlers)}")
        self._handlers[made.comm_id] = lambda message: None
        if options["data"]["state"].get("_view_module") == "anywidget":
            self._widget = made.comm_id
            self.messages.append({"method": "update", "state": options["data"]["state"]})
        return made

    def hear(self, comm_id: str, data: dict[str, Any]) -> None:
        with self.changed:
            if comm_id == self._widget:
                self.messages.append(data)
            self.changed.notify_all()

    def handle(self, comm_id: str, handler: Callable[[dict[str, Any]], None]) -> None:
        self._handlers[comm_id] = handler

    def say(self, data: dict[str, Any]) -> None:
        """What JavaScript sends."""
        self._handlers[self._widget]({"content": {"data": data}, "buffers": []})

    def ask(self, **content: Any) -> str:
        """Send a custom message; returns the refusal."""
        self.say({"method": "custom", "content": {**content, "id": 7}})
        got = [message for message in self.custom if message["is"] == "got"]
        assert got[-1]["id"] == 7
        refused: str = got[-1]["refused"]
        return refused

    @property
    def custom(self) -> list[dict[str, Any]]:
        return [message["content"] for message in list(self.messages) if message["method"] == "custom"]

    @property
    def traits(self) -> dict[str, Any]:
        """As the page knows them."""
        known: dict[str, Any] = {}
        for message in list(self.messages):
            known |= message.get("state", {})
        return known

    def wait_for(self, condition: Callable[[Page], bool]) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: condition(self), 10)


class Comm:
    def __init__(self, page: Page, comm_id: str) -> None:
        self.comm_id, self._page = comm_id, page

    def on_msg(self, handler: Callable[[dict[str, Any]], None]) -> None:
        self._page.handle(self.comm_id, handler)

    def send(self, data: dict[str, Any], buffers: Any = None) -> None:
        self._page.hear(self.comm_id, data)

    def close(self) -> None:
        self._page.is_closed = True


@pytest.fixture(autouse=True)
def headless(notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A shell that is found, as nbclient's is, and folders of the test's own."""
    monkeypatch.setattr("IPython.get_ipython", lambda: notebook.shell)
    monkeypatch.setenv("NBLLM_CHATS_DIR", str(tmp_path / "chats"))
    monkeypatch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("NBLLM_MODELS_DIR", str(tmp_path / "models"))
    known = set(exits._open.chats)
    yield
    for chat_id in set(exits._open.chats) - known:
        exits._open.chats[chat_id].close()


@pytest.fixture
def page(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> Page:
    """The shell is a kernel's, with somebody before it."""
    page = Page()
    monkeypatch.setattr(comm, "create_comm", page.comm)
    notebook.shell.kernel = object()
    notebook.shell.get_parent = lambda: {"content": {"allow_stdin": True}}
    return page


def answered(notebook: Notebook, widget: ChatWidget, question: str, answer: str) -> None:
    notebook.engine.enqueue(answer)
    widget.send(question)


# ---- in a cell


def test_send_returns_the_answer_and_keeps_it(notebook: Notebook) -> None:
    widget = ChatWidget(system="Be brief.", temperature=0.5)
    notebook.engine.enqueue("A1")
    response = widget.send("Q1")
    assert response is widget.last
    assert str(response) == "A1"
    assert widget.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q1"},
        {"role": "assistant", "content": "A1"},
    ]
    assert [message["text"] for message in widget.transcript] == ["Q1", "A1"]
    assert widget.model is notebook.models.model
    assert notebook.engine.requests[0].sampling.temperature == 0.5  # type: ignore[union-attr]


def test_send_without_waiting_returns_at_once_and_stop_keeps_the_text(notebook: Notebook) -> None:
    widget = ChatWidget()
    notebook.engine.enqueue(["half"], until_cancelled=True)
    is_answering, is_idle = threading.Event(), threading.Event()

    def look(change: dict[str, Any]) -> None:
        {"answering": is_answering, "idle": is_idle}.get(change["new"]["phase"], threading.Event()).set()

    widget.observe(look, "state")
    assert widget.send("Q1", wait=False) is None
    assert is_answering.wait(10)
    is_idle.clear()
    with pytest.raises(InvalidRequestError, match="wait for the answer, or stop it"):
        widget.send("Q2")
    widget.stop()
    assert is_idle.wait(10)
    assert widget.last is not None
    assert (widget.last.text, widget.last.finish_reason) == ("half", "interrupted")
    assert widget.transcript[-1]["ending"] == "interrupted"


def test_interrupt_stops_the_answer_and_keeps_its_text(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = ChatWidget()
    notebook.engine.enqueue(["half"], until_cancelled=True)
    wait = widget._talk.wait
    is_answering = threading.Event()

    def look(change: dict[str, Any]) -> None:
        if change["new"]["phase"] == "answering":
            is_answering.set()

    widget.observe(look, "state")

    def interrupted(timeout_s: float | None = None) -> bool:
        monkeypatch.undo()
        assert is_answering.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(widget._talk, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        widget.send("Q1")
    assert wait(10)
    assert caught.value._render_traceback_() == [  # type: ignore[attr-defined]
        "KeyboardInterrupt: the answer was stopped; what came of it is kept"
    ]
    assert widget.messages[-1]["content"] == "half"


def test_failure_is_raised_and_the_question_comes_back(notebook: Notebook) -> None:
    widget = ChatWidget()
    notebook.engine.enqueue(InvalidRequestError("too much of it; say less"))
    with pytest.raises(InvalidRequestError, match="too much of it; say less"):
        widget.send("Q1")
    assert (widget.state["error"], widget.state["draft"]) == ("too much of it; say less", "Q1")
    assert widget.messages == []
    answered(notebook, widget, "Q2", "A2")
    assert (widget.state["error"], widget.state["draft"]) == ("", "")


def test_transcript_can_be_observed_and_an_observer_may_use_the_widget(notebook: Notebook) -> None:
    widget, seen = ChatWidget(), []

    def look(change: dict[str, Any]) -> None:
        widget.stop()
        seen.append([message["text"] for message in change["new"]])
        raise RuntimeError("an observer's own trouble")

    widget.observe(look, "transcript")
    answered(notebook, widget, "Q1", "A1")
    answered(notebook, widget, "Q2", "A2")
    assert seen == [["Q1", "A1"], ["Q1", "A1", "Q2", "A2"]]


def test_widget_and_cells_see_what_the_other_says(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1")
    widget = ChatWidget()
    assert widget.conversation == "chat-1"
    answered(notebook, widget, "two", "A2")
    ask(notebook, "%chat three", "A3")
    assert [message["text"] for message in widget.transcript] == ["one", "A1", "two", "A2", "three", "A3"]
    assert len(notebook.engine.requests[-1].messages) == 5  # type: ignore[union-attr, arg-type]


def test_named_conversation_begins_or_goes_on(notebook: Notebook) -> None:
    answered(notebook, ChatWidget(conversation="draft"), "Q1", "A1")
    assert desk(notebook).conversations.names() == ["draft"]
    assert [message["content"] for message in ChatWidget(conversation="draft").messages] == ["Q1", "A1"]


def test_conversation_of_python_is_kept_in_step(notebook: Notebook) -> None:
    conversation = Conversation(notebook.models.model, system="Be brief.", name="mine")
    widget = ChatWidget(conversation=conversation)
    assert (widget.conversation, widget.model) == ("mine", notebook.models.model)
    answered(notebook, widget, "Q1", "A1")
    notebook.engine.enqueue("A2")
    conversation.send("Q2")
    assert [message.content for message in conversation.history] == ["Be brief.", "Q1", "A1", "Q2", "A2"]
    assert [message["text"] for message in widget.transcript] == ["Q1", "A1", "Q2", "A2"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param({"model": "no-such"}, ModelNotFoundError, id="unknown model"),
        pytest.param({"model": 3}, ParameterError, id="model is a number"),
        pytest.param({"temperatur": 1}, ParameterError, id="unknown option"),
        pytest.param({"temperature": -1}, ParameterError, id="option out of range"),
        pytest.param({"conversation": 3}, ParameterError, id="conversation is a number"),
        pytest.param({"conversation": " "}, ParameterError, id="empty name"),
        pytest.param({"system": 3}, InvalidRequestError, id="system is a number"),
    ],
)
def test_wrong_argument_is_one_line(notebook: Notebook, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        ChatWidget(**arguments)
    assert "\n" not in str(caught.value)


def test_without_a_shell_it_says_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    with pytest.raises(InvalidRequestError, match="ChatWidget works in JupyterLab"):
        ChatWidget()


def test_shell_without_the_extension_gets_it(notebook: Notebook) -> None:
    unload_ipython_extension(notebook.shell)
    ChatWidget(conversation="draft")
    assert desk(notebook).conversations.names() == ["draft"]


# ---- without a page


def test_without_a_page_the_output_is_text_that_follows(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbllm.notebook.widget.chat_widget.updates", lambda shell: True)
    monkeypatch.setattr(comm, "create_comm", lambda **_: pytest.fail("a comm was opened"))
    notebook.shell.kernel = object()
    notebook.shell.get_parent = lambda: {"content": {"allow_stdin": False}}
    notebook.engine.enqueue("A1")
    notebook.run("import nbllm\nw = nbllm.ChatWidget()\nw")
    (shown,) = notebook.outputs
    notebook.run("w.send('Q1');")
    (updated,) = notebook.outputs
    for output, is_update in ((shown, False), (updated, True)):
        assert set(output["data"]) == {"text/plain", "text/markdown"}
        assert output["update"] is is_update
        assert output["metadata"] == shown["metadata"]
        assert output["transient"] == shown["transient"]
    assert "A1" in updated["data"]["text/markdown"]
    assert shown["metadata"]["nbllm"]["chat"] in updated["data"]["text/plain"]


def test_other_widget_can_hold_it_all_the_same(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    page, widget = Page(), ChatWidget()
    monkeypatch.setattr(comm, "create_comm", page.comm)
    assert widget.model_id == widget.comm.comm_id
    assert page.traits["state"]["phase"] == "idle"
    widget.close()
    with pytest.raises(InvalidRequestError, match="closed"):
        _ = widget.model_id


def test_observer_may_ask_the_next_question(notebook: Notebook) -> None:
    widget = ChatWidget()

    def look(change: dict[str, Any]) -> None:
        if change["new"]["phase"] == "idle" and len(widget.messages) == 2:
            notebook.engine.enqueue("A2")
            assert widget.send("Q2") is None

    widget.observe(look, "state")
    answered(notebook, widget, "Q1", "A1")
    assert widget._talk.wait(10)
    assert [message["content"] for message in widget.messages] == ["Q1", "A1", "Q2", "A2"]


def test_terminal_shows_the_text_once(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[bool] = []
    place = Place(lambda **options: published.append(options["update"]), "a-chat-id", updates=False)
    place.update({"text/plain": "before it is shown"})
    place.show({"text/plain": "one"})
    place.update({"text/plain": "two"})
    place.show({"text/plain": "two"})
    assert published == [False, False]


# ---- with a page


def test_page_gets_the_widget_with_text_beside_it(notebook: Notebook, page: Page) -> None:
    notebook.run("import nbllm\nw = nbllm.ChatWidget()\nw")
    (shown,) = notebook.outputs
    assert set(shown["data"]) == {"text/plain", "text/markdown", VIEW}
    assert shown["metadata"]["nbllm"]["chat"]
    assert page.traits["state"]["phase"] == "idle"
    assert page.traits["limits"]["attachments"] > 0
    assert page.wait_for(lambda page: page.traits["header"]["models"] != [])


def test_page_asks_and_sees_the_answer_in_order(notebook: Notebook, page: Page) -> None:
    widget = ChatWidget()
    notebook.engine.enqueue(["A", "1"])
    assert page.ask(do="send", text="Q1") == ""
    assert widget._talk.wait(10)
    kinds = [message["is"] for message in page.custom]
    assert kinds[0] in ("got", "live")
    shown = [message for message in page.messages if message["method"] == "update" or message["content"]["is"] != "got"]
    final = next(
        index for index, message in enumerate(shown) if message.get("content", {}).get("blocks") == [["p", {}, "A1"]]
    )
    transcript = next(index for index, message in enumerate(shown) if message.get("state", {}).get("transcript"))
    end = next(index for index, message in enumerate(shown) if message.get("content", {}).get("live", 1) is None)
    assert final < transcript < end
    question, answer = page.traits["transcript"]
    begun = next(message["live"] for message in page.custom if message["is"] == "live")
    assert (begun["question"]["text"], begun["after"]) == (question["text"], 0)
    assert answer["live"] == begun["id"]


def test_page_cannot_set_a_trait(notebook: Notebook, page: Page) -> None:
    widget = ChatWidget()
    num_messages = len(page.messages)
    attack, module = [["img", {"onerror": "alert(1)"}]], str(widget._esm)
    page.say({"method": "update", "state": {"transcript": attack, "header": {}, "_esm": "alert(1)", "layout": "x"}})
    assert widget.transcript == []
    assert str(widget._esm) == module
    assert "alert(1)" not in repr(page.messages[num_messages:])
    page.say({"method": "request_state"})
    assert page.traits["transcript"] == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="none"),
        pytest.param("stop", id="text"),
        pytest.param({"do": "eval", "id": {"a": []}}, id="odd id"),
    ],
)
def test_odd_message_is_refused(notebook: Notebook, page: Page, content: object) -> None:
    widget = ChatWidget()
    page.say({"method": "custom", "content": content})
    (got,) = [message for message in page.custom if message["is"] == "got"]
    assert got["refused"]
    assert got["id"] is None
    assert widget.state["phase"] == "idle"


def test_page_sees_a_changed_setting_and_a_name(notebook: Notebook, page: Page) -> None:
    widget = ChatWidget()
    assert page.ask(do="settings", values={"temperature": 0.3}) == ""
    assert {one["name"]: one["value"] for one in page.traits["header"]["settings"]}["temperature"] == 0.3
    assert "out of range" in page.ask(do="settings", values={"temperature": -1})
    assert page.ask(do="rename", name="mine") == ""
    assert (widget.conversation, page.traits["header"]["conversation"]) == ("mine", "mine")


def shown(page: Page) -> list[str]:
    return [message["text"] for message in page.traits["transcript"]]


def waiting(notebook: Notebook, page: Page, widget: ChatWidget) -> dict[str, Any]:
    """Ask something, and return what the page knows of the answer, of which some has come."""
    notebook.engine.enqueue(["half"], until_cancelled=True)
    widget.send("Q", wait=False)
    assert page.wait_for(lambda page: any(message["is"] == "delta" for message in page.custom))
    found: dict[str, Any] = [message["live"] for message in page.custom if message["is"] == "live"][-1]
    return found


def test_answer_stands_under_what_it_answers_though_a_cell_takes_another_branch(notebook: Notebook, page: Page) -> None:
    ask(notebook, "%chat hi", "A1", "one")
    widget = ChatWidget()
    assert waiting(notebook, page, widget)["after"] == 1
    ask(notebook, "%chat hi", "A2", "one")
    assert shown(page) == ["hi", "A1"]
    assert page.traits["transcript"][0]["branches"] == {"index": 0, "turns": [1, 2]}
    widget.stop()
    assert widget._talk.wait(10)
    assert shown(page) == ["hi", "A1", "Q", "half"]


def test_question_without_an_answer_leaves_the_branch_that_a_cell_took(notebook: Notebook, page: Page) -> None:
    ask(notebook, "%chat hi", "A1", "one")
    widget = ChatWidget()
    notebook.engine.enqueue([Chunk(reasoning="hm")], until_cancelled=True)
    widget.send("Q", wait=False)
    assert page.wait_for(lambda page: any(message["is"] == "delta" for message in page.custom))
    ask(notebook, "%chat hi", "A2", "one")
    assert shown(page) == ["hi", "A1"]
    widget.stop()
    assert widget._talk.wait(10)
    assert shown(page) == ["hi", "A2"]
    assert page.traits["state"]["draft"] == "Q"


def test_answer_to_a_stale_turn_stands_under_its_own_branch(notebook: Notebook, page: Page) -> None:
    widget = ChatWidget()
    answered(notebook, widget, "Q1", "A1")
    answered(notebook, widget, "Q2", "A2")
    tree = widget._talk.book.tree
    tree.restart(tree.restarted())
    assert shown(page) == []
    notebook.engine.enqueue(["half"], until_cancelled=True)
    num_before = len(page.custom)
    widget._talk.regenerate(2)
    assert page.wait_for(lambda page: any(message["is"] == "delta" for message in page.custom[num_before:]))
    assert shown(page) == ["Q1", "A1"]
    widget.stop()
    assert widget._talk.wait(10)
    assert shown(page) == ["Q1", "A1", "Q2", "half"]


def names(widget: ChatWidget) -> list[str]:
    found: list[str] = widget.header["conversations"]
    return found


def test_every_widget_lists_the_conversations_that_others_make(notebook: Notebook, page: Page) -> None:
    one, two = ChatWidget(conversation="first"), ChatWidget(conversation="second")
    assert names(one) == names(two) == ["first", "second"]
    two._talk.rename("other")
    assert names(one) == ["first", "other"]
    ask(notebook, "%chat --new hi", "A1")
    assert names(one) == names(two) == ["first", "other", "chat-1"]
    two._talk.new()
    assert names(one) == ["first", "other", "chat-1", "chat-2"]
    notebook.run("%llm reset other")
    assert names(one) == names(two) == ["first", "chat-1", "chat-2"]
    one.close()
    two._talk.rename("last")
    assert names(one) == ["first", "chat-1", "chat-2"]


def test_export_is_sent_to_the_page(notebook: Notebook, page: Page) -> None:
    answered(notebook, ChatWidget(), "Q1", "A1")
    assert page.ask(do="export", format="jsonl") == ""
    (file,) = [message for message in page.custom if message["is"] == "export"]
    assert file["name"].endswith(".jsonl")
    assert '"A1"' in file["content"]


def test_late_page_hears_what_is_going_on_and_where_to_stop_it(notebook: Notebook, page: Page) -> None:
    widget = ChatWidget()
    notebook.engine.enqueue(["half"], until_cancelled=True)
    widget.send("Q1", wait=False)
    assert page.wait_for(lambda page: any(message["is"] == "delta" for message in page.custom))
    assert page.ask(do="hello") == ""
    live = [message for message in page.custom if message["is"] == "live"][-1]
    assert (live["live"]["tail"], live["live"]["question"]["text"]) == ("half", "Q1")
    assert page.wait_for(lambda page: bool(page.traits["stop_token"]))
    from nbllm.config import load_config
    from nbllm.runner.stops import request_stop

    assert request_stop(load_config().runtime_dir, page.traits["stop_token"])
    assert widget._talk.wait(10)
    assert widget.transcript[-1]["ending"] == "interrupted"


def test_freeze_turns_the_output_into_text_and_showing_wakes_it(notebook: Notebook, page: Page) -> None:
    notebook.run("import nbllm\nw = nbllm.ChatWidget()\nw")
    widget = notebook.shell.user_ns["w"]
    answered(notebook, widget, "Q1", "A1")
    notebook.publisher.outputs.clear()
    assert page.ask(do="freeze") == ""
    (frozen,) = notebook.outputs
    assert frozen["update"]
    assert VIEW not in frozen["data"]
    assert "A1" in frozen["data"]["text/markdown"]
    assert page.traits["state"]["frozen"]
    answered(notebook, widget, "Q2", "A2")
    assert "A2" in notebook.outputs[-1]["data"]["text/markdown"]
    notebook.run("w")
    assert VIEW in notebook.outputs[-1]["data"]
    assert not page.traits["state"]["frozen"]


def test_close_stops_and_leaves_text_behind(notebook: Notebook, page: Page) -> None:
    notebook.run("import nbllm\nw = nbllm.ChatWidget()\nw")
    widget = notebook.shell.user_ns["w"]
    notebook.engine.enqueue(["half"], until_cancelled=True)
    widget.send("Q1", wait=False)
    assert page.wait_for(lambda page: any(message["is"] == "delta" for message in page.custom))
    widget.close()
    assert page.is_closed
    last = notebook.outputs[-1]
    assert last["update"]
    assert VIEW not in last["data"]
    assert "half" in last["data"]["text/markdown"]
    widget.close()
    with pytest.raises(InvalidRequestError, match="closed"):
        widget.send("Q2")
    notebook.run("w")
    assert VIEW not in notebook.outputs[-1]["data"]
    assert widget.messages[-1]["content"] == "half"


def test_end_of_the_kernel_closes_what_is_open(notebook: Notebook, page: Page) -> None:
    notebook.run("import nbllm\nw = nbllm.ChatWidget()\nw")
    exits._close_all()
    assert page.is_closed
    assert VIEW not in notebook.outputs[-1]["data"]


def test_child_of_the_kernel_closes_nothing(notebook: Notebook, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    ChatWidget()
    monkeypatch.setattr(exits._open, "pid", os.getpid() + 1)
    exits._close_all()
    assert not page.is_closed


# ---- on disk


def test_what_is_said_is_on_disk_after_each_turn_and_can_be_gone_on_with(notebook: Notebook) -> None:
    widget = ChatWidget()
    answered(notebook, widget, "Q1", "A1")
    (kept,) = Shelf().list()
    assert [message.content for message in Shelf().messages(kept.chat_id)] == ["Q1", "A1"]
    assert notebook.run(f"%llm chat {kept.chat_id}").result is widget
    widget.close()
    assert "A1" in (Shelf().bundle(kept.chat_id) or {})["text/markdown"]
    notebook.run("%llm reset --all")
    notebook.engine.enqueue("A2")
    result = notebook.run(f"w = %llm chat {kept.chat_id}\nw.send('Q2')")
    assert isinstance(result.result, Response)
    assert desk(notebook).conversations.names() == [kept.chat_id]
    assert [message["content"] for message in notebook.shell.user_ns["w"].messages] == ["Q1", "A1", "Q2", "A2"]
    assert [message.content for message in Shelf().messages(kept.chat_id)] == ["Q1", "A1"]


def test_new_conversation_takes_nobodys_place_on_disk(notebook: Notebook) -> None:
    widget = ChatWidget()
    answered(notebook, widget, "Q1", "A1")
    widget._talk.new()
    answered(notebook, widget, "Q2", "A2")
    kept = {tuple(turn.content for turn in Shelf().messages(chat.chat_id)) for chat in Shelf().list()}
    assert kept == {("Q1", "A1"), ("Q2", "A2")}


def test_new_conversation_has_the_widgets_system_message(notebook: Notebook) -> None:
    widget = ChatWidget(system="Be brief.")
    answered(notebook, widget, "Q1", "A1")
    widget._talk.new()
    assert widget._talk.system == "Be brief."


def test_chat_that_was_saved_before_its_first_turn_has_a_text(notebook: Notebook, page: Page) -> None:
    notebook.run("import nbllm\nnbllm.ChatWidget()")
    (metadata,) = [output["metadata"] for output in notebook.outputs if output["metadata"].get("nbllm")]
    assert "No messages yet" in (Shelf().bundle(metadata["nbllm"]["chat"]) or {})["text/plain"]
    assert Shelf().list() == []


def test_what_a_cell_says_is_on_disk_too(notebook: Notebook, page: Page) -> None:
    ChatWidget()
    ask(notebook, "%chat one", "A1")
    notebook.shell.user_ns.clear()
    ChatWidget.close_all()
    (kept,) = Shelf().list()
    assert [message.content for message in Shelf().messages(kept.chat_id)] == ["one", "A1"]


def test_trouble_with_the_disk_is_said_once_and_nothing_else_fails(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NBLLM_CHATS_DIR", str(tmp_path / "file" / "chats"))
    widget, errors = ChatWidget(), []
    widget.observe(lambda change: errors.append(change["new"]["error"]), "state")
    answered(notebook, widget, "Q1", "A1")
    answered(notebook, widget, "Q2", "A2")
    assert [message["content"] for message in widget.messages] == ["Q1", "A1", "Q2", "A2"]
    said = list(dict.fromkeys(error for error in errors if error))
    assert len(said) == 1
    assert "chats" in said[0]


# ---- %llm chat


@pytest.mark.parametrize(
    ("line", "name"), [pytest.param("", "chat-1", id="without a name"), pytest.param("draft", "draft", id="new name")]
)
def test_llm_chat_gives_a_widget(notebook: Notebook, line: str, name: str) -> None:
    result = notebook.run(f"%llm chat {line}")
    assert isinstance(result.result, ChatWidget)
    assert result.result.conversation == name
    assert name in notebook.plain


def test_llm_chat_of_an_id_that_is_not_there_names_those_that_are(notebook: Notebook) -> None:
    result = notebook.run("%llm chat 20261122-0a1b2c3d4e5f")
    assert isinstance(result.error_in_exec, InvalidRequestError)
    assert "there is none yet" in str(result.error_in_exec)
