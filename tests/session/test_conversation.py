"""Conversations, over an engine with a script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbllm.core import GenerateRequest, Message, ToolCall
from nbllm.errors import EngineDeadError, InvalidRequestError, ParameterError
from nbllm.session.conversation import Conversation, read_messages, write_messages
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def talk(engine: ScriptedEngine) -> Conversation:
    return Model(engine).conversation(system="Be brief.")


def _last(engine: ScriptedEngine) -> GenerateRequest:
    request = engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    return request


def test_each_question_carries_the_turns_before(engine: ScriptedEngine, talk: Conversation) -> None:
    engine.enqueue("Hello.")
    engine.enqueue("Good.")
    assert talk.send("Hi").text == "Hello."
    talk.send("How are you?")
    asked = [turn.content for turn in _last(engine).messages or ()]
    assert asked == ["Be brief.", "Hi", "Hello.", "How are you?"]
    assert (_last(engine).messages or ())[2].tokens == tuple(b"Hello.")
    assert [turn.content for turn in talk.history] == [*asked, "Good."]


def test_refused_question_leaves_the_history_as_it_was(engine: ScriptedEngine, talk: Conversation) -> None:
    engine.enqueue(InvalidRequestError("no"))
    with pytest.raises(InvalidRequestError):
        talk.send("Hi")
    assert len(talk) == 1


def test_answer_that_failed_half_way_is_kept(engine: ScriptedEngine, talk: Conversation) -> None:
    engine.enqueue(["Hel", EngineDeadError("gone")])
    with pytest.raises(EngineDeadError):
        talk.send("Hi")
    assert [turn.content for turn in talk.history] == ["Be brief.", "Hi", "Hel"]


def test_stream_that_is_left_early_keeps_what_came(engine: ScriptedEngine, talk: Conversation) -> None:
    engine.enqueue(["Hel", "lo"], until_cancelled=True)
    pieces = talk.stream("Hi")
    assert next(pieces).text == "Hel"
    pieces.close()  # type: ignore[attr-defined]
    assert talk.history[-1].content == "Hel"
    assert engine.tickets[-1].is_done


def test_fork_goes_its_own_way(engine: ScriptedEngine, talk: Conversation) -> None:
    engine.enqueue("one")
    other = talk.fork("other")
    other.send("Hi")
    assert (len(talk), len(other)) == (1, 3)
    assert "other" in repr(other)


def test_undo_forgets_the_last_question_and_its_answer(engine: ScriptedEngine, talk: Conversation) -> None:
    engine.enqueue("one")
    engine.enqueue("two")
    talk.send("a")
    talk.send("b")
    talk.undo()
    assert [turn.content for turn in talk.history] == ["Be brief.", "a", "one"]
    talk.undo()
    talk.undo()
    assert [turn.content for turn in talk.history] == ["Be brief."]


def test_what_is_saved_is_loaded(tmp_path: Path, talk: Conversation) -> None:
    turns = [
        Message("user", "line\none, a \u2028 separator and half a pair \ud83d"),
        Message("assistant", "ja, grüß Gott 🙂", reasoning="hm"),
        Message("user", "again", name="Ada"),
    ]
    full = Conversation(talk.model, system="Be brief.", history=turns)
    path = full.save(tmp_path / "talk.jsonl")
    loaded = Conversation.load(path, talk.model)
    assert loaded.history == full.history
    assert loaded.history[2].reasoning == "hm"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("line", ["{", "[]", '{"role": "wizard", "content": "x"}', '{"content": "x"}', "5"])
def test_damaged_line_is_named(tmp_path: Path, talk: Conversation, line: str) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"role": "user", "content": "fine"}) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="line 2") as refusal:
        Conversation.load(path, talk.model)
    assert "\n" not in str(refusal.value)


def test_empty_answers_can_be_loaded_again(tmp_path: Path, talk: Conversation) -> None:
    turns = [Message("user", "say nothing"), Message("assistant", "")]
    path = Conversation(talk.model, history=turns).save(tmp_path / "talk.jsonl")
    assert Conversation.load(path, talk.model).history == tuple(turns)


def test_question_must_be_a_text(talk: Conversation) -> None:
    with pytest.raises(ParameterError, match="prompt"):
        talk.send(["a"])  # type: ignore[arg-type]


def test_calls_of_tools_are_saved_and_loaded(tmp_path: Path) -> None:
    turns = (
        Message("user", "2 + 2?"),
        Message("assistant", "", tool_calls=(ToolCall("call_1", "add", '{"a": 2, "b": 2}'),)),
        Message("tool", "4", tool_call_id="call_1", name="add"),
    )
    write_messages(tmp_path / "talk.jsonl", turns)
    assert read_messages(tmp_path / "talk.jsonl") == turns


# ---- other turns, and those who watch


def test_history_is_swapped_if_nobody_spoke_meanwhile(engine: ScriptedEngine, talk: Conversation) -> None:
    before = talk.history
    other = [Message("user", "a"), Message("assistant", "b")]
    engine.enqueue("Hello.")
    talk.send("Hi")
    assert not talk.swap(before, other)
    assert len(talk) == 3
    assert talk.swap(talk.history, other)
    assert talk.history == tuple(other)
    engine.enqueue("c")
    talk.send("d")
    assert [turn.content for turn in _last(engine).messages or ()] == ["a", "b", "d"]


def test_watchers_are_told_of_every_change(engine: ScriptedEngine, talk: Conversation) -> None:
    told: list[int] = []
    unwatch = talk.watch(lambda: told.append(len(talk)))
    engine.enqueue("Hello.")
    talk.send("Hi")
    engine.enqueue(["a", "b"])
    list(talk.stream("And?"))
    talk.undo()
    talk.swap(talk.history, [])
    assert told == [3, 5, 3, 0]
    unwatch()
    unwatch()
    talk.swap([], [Message("user", "a")])
    assert len(told) == 4


def test_watcher_that_fails_harms_nobody(
    engine: ScriptedEngine, talk: Conversation, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[float] = []
    talk.watch(lambda: told.append(1 // 0))
    engine.enqueue("Hello.")
    assert talk.send("Hi").text == "Hello."
    assert "a watcher of a conversation failed" in caplog.text


@pytest.mark.parametrize(
    ("roles", "left"),
    [
        ("", ""),
        ("system", "system"),
        ("system user assistant", "system"),
        ("user assistant user", "user assistant"),
        ("user assistant tool assistant", ""),
        ("user assistant system", "user assistant system"),
        ("user assistant system assistant", "user assistant system"),
        ("assistant", ""),
    ],
)
def test_undo_forgets_the_last_question_and_what_follows(talk: Conversation, roles: str, left: str) -> None:
    turns = [Message(role, "x") for role in roles.split()]  # type: ignore[arg-type]
    one = Conversation(talk.model, history=turns)
    one.undo()
    assert " ".join(turn.role for turn in one.history) == left
