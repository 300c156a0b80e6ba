from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core import Message, ToolCall
from nbllm.errors import InvalidRequestError, NbllmError, ParameterError
from nbllm.notebook.widget.frozen import bundle
from nbllm.notebook.widget.lines import of_lines
from nbllm.notebook.widget.shelf import Shelf, new_id
from nbllm.session.conversation import Conversation, as_lines
from nbllm.session.model import Model
from nbllm.store import chats
from nbllm.store.chats import checked_id
from nbllm.testing import ScriptedEngine
from tests.notebook.widget.conversing import tree_of

ID = "20261122-0a1b2c3d4e5f"
PATH = tree_of(("Hello", "Hi"), ("More ☃", "**Yes**"), system="Be kind.").path()
SAID = (
    Message("system", "Be kind."),
    Message("user", "Hello"),
    Message("assistant", "Hi", reasoning="hm", tool_calls=(ToolCall("1", "f", "{}"),)),
    Message("tool", "ok", tool_call_id="1"),
    Message("assistant", "☃\n\ud800", name="x"),
)
BUNDLE = {"text/markdown": "a", "text/plain": "b"}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "chats")


def test_chat_is_read_as_it_was_saved(shelf: Shelf) -> None:
    made = bundle("chat-1", PATH, ID)
    shelf.save(ID, SAID, made)
    assert shelf.messages(ID) == SAID
    assert shelf.bundle(ID) == made
    shelf.save(ID, SAID[:2], BUNDLE)
    assert shelf.messages(ID) == SAID[:2]
    assert shelf.bundle(ID) == BUNDLE


def test_saved_file_is_a_saved_conversation(shelf: Shelf) -> None:
    shelf.save(ID, SAID[:2], BUNDLE)
    loaded = Conversation.load(shelf.folder / f"{ID}.jsonl", Model(ScriptedEngine()))
    assert loaded.history == SAID[:2]


def test_files_are_nobody_elses(shelf: Shelf) -> None:
    shelf.save(ID, SAID, BUNDLE)
    assert shelf.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in shelf.folder.iterdir()} == {0o600}
    assert len(list(shelf.folder.iterdir())) == 2


def test_folder_is_the_configured_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBLLM_CHATS_DIR", str(tmp_path / "mine"))
    assert Shelf().folder == tmp_path / "mine"


def test_newest_chat_is_listed_first(shelf: Shelf) -> None:
    assert shelf.list() == []
    ids = [f"{ID}{number}" for number in range(3)]
    for chat_id, changed_at in zip(ids, [2, 3, 1], strict=True):
        shelf.save(chat_id, SAID, BUNDLE)
        os.utime(shelf.folder / f"{chat_id}.jsonl", (changed_at, changed_at))
    (shelf.folder / "x.jsonl").write_text("")
    (shelf.folder / "notes.txt").write_text("")
    assert [chat.chat_id for chat in shelf.list()] == [ids[1], ids[0], ids[2]]
    assert shelf.list()[0].changed_at == 3
    assert shelf.list()[0].size_bytes == len(as_lines(SAID))


def test_chat_in_which_nothing_was_said_is_none(shelf: Shelf) -> None:
    shelf.save(ID, [], BUNDLE)
    assert shelf.list() == []
    with pytest.raises(InvalidRequestError, match="there is none yet"):
        shelf.messages(ID)
    assert shelf.bundle(ID) == BUNDLE


def test_ids_are_fit_and_different() -> None:
    assert len({checked_id(new_id()) for _ in range(100)}) == 100


def test_missing_chat_is_an_error_that_names_others(shelf: Shelf) -> None:
    with pytest.raises(InvalidRequestError, match=f"no chat {ID} .* there is none yet"):
        shelf.messages(ID)
    shelf.save(ID, SAID, BUNDLE)
    with pytest.raises(InvalidRequestError, match=f"no chat {ID}-2 .* the newest are {ID}"):
        shelf.messages(f"{ID}-2")
    assert shelf.bundle(f"{ID}-2") is None


@pytest.mark.parametrize("chat_id", ["../../etc/passwd", "", "A" * 20, "x", "a/b-ccccccc"])
def test_id_that_is_none_is_refused(shelf: Shelf, chat_id: str) -> None:
    with pytest.raises(ParameterError, match="id of a chat"):
        shelf.save(chat_id, SAID, BUNDLE)
    with pytest.raises(ParameterError, match="id of a chat"):
        shelf.messages(chat_id)


@pytest.mark.parametrize("line", [b"{", b"3", b'{"role": "king", "content": ""}', b"\xff", b"[" * 100_000])
def test_damaged_line_is_named(shelf: Shelf, line: bytes) -> None:
    chats.write_messages(ID, as_lines(SAID) + b"\n" + line + b"\n", shelf.folder)
    with pytest.raises(
        InvalidRequestError, match=rf"{ID}\.jsonl: line 7 is not a message \(.*correct the line"
    ) as caught:
        shelf.messages(ID)
    assert "\n" not in str(caught.value)


def test_full_disk_is_one_line_and_loses_nothing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.save(ID, SAID, BUNDLE)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lines = as_lines(SAID[:2])
    monkeypatch.setattr("nbllm.notebook.widget.shelf.as_lines", lambda _: lines)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NbllmError, match=r"No space left on device; make room there, or .*chats_dir") as caught:
        shelf.save(ID, SAID[:2], BUNDLE)
    assert str(shelf.folder) in str(caught.value)
    assert shelf.messages(ID) == SAID
    assert len(list(shelf.folder.iterdir())) == 2


def test_temporary_folder_is_not_needed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    shelf.save(ID, SAID, BUNDLE)
    assert shelf.messages(ID) == SAID


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NbllmError, match=r"chats_dir.*file/chats"):
        Shelf(tmp_path / "file" / "chats").save(ID, SAID, BUNDLE)


def test_bundle_that_is_too_large_is_refused(shelf: Shelf) -> None:
    with pytest.raises(NbllmError, match="export it"):
        shelf.save(ID, SAID, BUNDLE | {"text/plain": "x" * chats.MAX_BUNDLE_BYTES})
    assert shelf.messages(ID) == SAID


def test_saves_on_many_threads_leave_a_whole_chat(shelf: Shelf) -> None:
    def save(number: int) -> None:
        shelf.save(ID, [Message("user", f"{number}")] * 50, BUNDLE | {"text/plain": f"{number}"})

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = {message.content for message in shelf.messages(ID)}
    assert said == {(shelf.bundle(ID) or {})["text/plain"]}
    assert len(shelf.messages(ID)) == 50


@given(
    st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(st.characters(codec=None))))
)
def test_lines_are_undone(messages: list[Message]) -> None:
    lines = as_lines(messages)
    assert list(of_lines(lines)) == messages
    assert [json.loads(line)["role"] for line in lines.splitlines()] == [message.role for message in messages]
