"""The folder of chats: what has a name there, what is read back, and what is removed."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.config import Config
from nbllm.errors import ParameterError
from nbllm.store import chats

ID = "20261122-0a1b2c3d4e5f"
BUNDLE = {"text/markdown": "**You**: hi", "text/plain": "You: hi"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats"


def _raw_bundle(place: Path, data: bytes, mode: int = 0o600) -> None:
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{ID}.bundle.json"
    path.write_bytes(data)
    path.chmod(mode)


def test_folder_is_the_settings(tmp_path: Path) -> None:
    assert chats.folder(Config(chats_dir=tmp_path)) == tmp_path


def test_what_was_written_comes_back(place: Path) -> None:
    chats.write_messages(ID, b'{"role": "user"}\n', place)
    chats.write_bundle(ID, BUNDLE, place)
    assert chats.read_messages(ID, place) == b'{"role": "user"}\n'
    assert chats.read_bundle(ID, place) == BUNDLE
    assert sorted(os.listdir(place)) == [f"{ID}.bundle.json", f"{ID}.jsonl"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}


def test_nothing_is_there_before_it_was_written(place: Path) -> None:
    assert chats.read_messages(ID, place) is None
    assert chats.read_bundle(ID, place) is None


def test_new_ids_are_ids_and_differ() -> None:
    made = {chats.new_id() for _ in range(50)}
    assert len(made) == 50
    assert {chats.checked_id(one) for one in made} == made


@pytest.mark.parametrize(
    "chat_id",
    [
        *(None, 5, b"a" * 20, "", "short", "con", "a" * 65, "-" + "a" * 20, "a" * 20 + "-", "A" * 20, "a" * 20 + "\n"),
        *("../../../etc/passwd", "aaaaaaaa/bbbbbbbb", "aaaa\\bbbbbbbb", "aaaaaaaa\0", "aaaaaaaa.bbb", "é" * 20),
        "\u0660" * 20,
    ],
    ids=repr,
)
def test_impossible_id_is_refused_in_one_line(place: Path, chat_id: Any) -> None:
    with pytest.raises(ParameterError, match=r"^chat: .* is not the id of a chat; one looks like") as raised:
        chats.checked_id(chat_id)
    assert "\n" not in str(raised.value)
    assert chats.read_bundle(chat_id, place) is None
    with pytest.raises(ParameterError):
        chats.write_messages(chat_id, b"", place)
    with pytest.raises(ParameterError):
        chats.write_bundle(chat_id, BUNDLE, place)
    assert not place.exists()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[" * 50_000, id="deep"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"text/markdown": "a"}', id="one is missing"),
        pytest.param(b'{"text/markdown": "a", "text/plain": 1}', id="no text"),
        pytest.param(b'{"text/markdown": ["a"], "text/plain": "a"}', id="lines"),
        pytest.param(b'{"text/markdown": "a", "text/plain": "a", "text/html": "<script>"}', id="one more"),
        pytest.param(b'{"text/markdown": "a", "text/plain": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"text/markdown": "a", "text/plain": "\xff"}', id="not UTF-8"),
    ],
)
def test_damaged_bundle_is_none(place: Path, data: bytes) -> None:
    _raw_bundle(place, data)
    assert chats.read_bundle(ID, place) is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bundle=st.fixed_dictionaries({"text/markdown": st.text(), "text/plain": st.text()}))
def test_any_text_comes_back(place: Path, bundle: dict[str, str]) -> None:
    chats.write_bundle(ID, bundle, place)
    assert chats.read_bundle(ID, place) == bundle


def test_bundle_that_is_too_large_is_not_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.dumps(BUNDLE).encode()
    monkeypatch.setattr(chats, "MAX_BUNDLE_BYTES", len(data))
    _raw_bundle(place, data)
    assert chats.read_bundle(ID, place) == BUNDLE
    _raw_bundle(place, data + b" ")
    assert chats.read_bundle(ID, place) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_bundle_that_others_can_touch_is_not_read(place: Path, mode: int) -> None:
    _raw_bundle(place, json.dumps(BUNDLE).encode(), mode)
    assert chats.read_bundle(ID, place) is None


def test_link_to_a_bundle_is_not_followed(place: Path, tmp_path: Path) -> None:
    _raw_bundle(place, json.dumps(BUNDLE).encode())
    path = place / f"{ID}.bundle.json"
    path.symlink_to(path.rename(tmp_path / "elsewhere.json"))
    assert chats.read_bundle(ID, place) is None


def test_chat_that_is_too_large_is_refused_and_the_old_one_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "MAX_MESSAGES_BYTES", 10)
    chats.write_messages(ID, b"0123456789", place)
    with pytest.raises(ParameterError, match="11 bytes and 10 can be kept; export it, and begin a new one"):
        chats.write_messages(ID, b"0123456789a", place)
    assert chats.read_messages(ID, place) == b"0123456789"


def test_half_a_surrogate_pair_is_refused(place: Path) -> None:
    with pytest.raises(ParameterError, match="half a surrogate pair"):
        chats.write_bundle(ID, {**BUNDLE, "text/plain": "\ud800"}, place)


def test_folder_that_others_may_write_to_is_refused(place: Path) -> None:
    place.mkdir(parents=True)
    place.chmod(0o777)
    with pytest.raises(ParameterError, match="chats_dir: others may write to"):
        chats.write_messages(ID, b"{}", place)
    assert os.listdir(place) == []


def _aged(path: Path, age_s: float) -> Path:
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_prune_keeps_the_chats_that_grew_last_whole(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"chat-{number:04}" for number in range(5)]
    for age, name in enumerate(names):
        chats.write_messages(name, b"{}", place)
        chats.write_bundle(name, BUNDLE, place)
        _aged(place / f"{name}.jsonl", 100 * age)
        _aged(place / f"{name}.bundle.json", 1000)
    _aged(place / f"{names[4]}.bundle.json", 0)  # one file of it is new
    monkeypatch.setattr(chats, "MAX_CHATS", 3)
    chats.prune(place)
    left = {path.name.partition(".")[0] for path in place.iterdir()}
    assert left == {names[0], names[1], names[4]}
    assert len(list(place.iterdir())) == 6


def test_a_new_chat_makes_room_for_itself(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned: list[Path] = []
    monkeypatch.setattr(chats, "prune", pruned.append)
    chats.write_messages(ID, b"{}", place)
    chats.write_messages(ID, b"{}\n{}", place)
    assert pruned == [place]


def test_prune_removes_what_was_never_finished_and_nothing_else(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "MAX_CHATS", 0)
    place.mkdir(parents=True)
    unfinished, fresh, other = place / ".chat-old", place / ".chat-new", place / "notes.txt"
    for path in (unfinished, fresh, other):
        path.touch()
    _aged(unfinished, 7200)
    _aged(other, 1e6)
    (place / "chat-9999.jsonl").mkdir()
    chats.prune(place)
    assert sorted(os.listdir(place)) == [".chat-new", "chat-9999.jsonl", "notes.txt"]


def test_prune_of_a_missing_folder_does_nothing(place: Path) -> None:
    chats.prune(place)
    assert not place.exists()
