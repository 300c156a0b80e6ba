"""Records of engines: what counts, what is passed over, and what is swept up."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.errors import ParameterError
from nbllm.runner import records
from nbllm.runner.listener import LoopbackAddress, UnixAddress, listen
from nbllm.runner.messages import PROTOCOL
from nbllm.runner.records import Record
from nbllm.testing import ScriptedEngine

HASH = "ab" * 32


def a_record(**changes: Any) -> Record:
    made = records.new_record(
        "kernel", ScriptedEngine().info, address=UnixAddress("/run/engine.sock"), token="secret", file_hash=HASH
    )
    return msgspec.structs.replace(made, **changes)


def write_raw(folder: Path, data: bytes, *, name: str | None = None, mode: int = 0o600) -> Path:
    path = folder / (name or f"{os.getpid()}-{'0' * 16}.json")
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return records.prepare(tmp_path / "deep" / "records")


@pytest.fixture
def ended_process() -> Iterator[records.Process]:
    """One that has died and that nobody has waited for."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = records._start_of(process.pid)
    assert started is not None
    assert process.stdin is not None
    own = records.this_process()
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield msgspec.structs.replace(own, pid=process.pid, started=started)
    process.wait()


def test_record_comes_back_as_it_was_written(folder: Path) -> None:
    record = a_record()
    path = records.write(folder, record)
    assert records.find(folder) == [record]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    records.remove(path)
    records.remove(path)
    assert records.find(folder) == []
    assert os.listdir(folder) == []


def test_find_gives_the_newest_first_and_only_what_was_asked_for(folder: Path) -> None:
    old, new = a_record(created=1.0), a_record(created=2.0, kind="runner", address=LoopbackAddress(4711))
    other = a_record(created=3.0, file_hash="cd" * 32)
    for record in (old, new, other):
        records.write(folder, record)
    assert records.find(folder) == [other, new, old]
    assert records.find(folder, file_hash=HASH) == [new, old]
    assert records.find(folder, file_hash=HASH, kinds=("kernel",)) == [old]


def test_find_in_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert records.find(tmp_path / "nothing") == []


def test_token_shows_in_no_text(folder: Path) -> None:
    record = a_record(token="open sesame")
    assert "sesame" not in f"{record!r} {record}"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pid": 2**22 + 5}, id="no such pid"),
        pytest.param({"pid": -1}, id="no pid at all"),
        pytest.param({"started": 1.0}, id="the pid came again"),
        pytest.param({"boot": "another"}, id="another boot"),
        pytest.param({"boot": "another", "protocol": PROTOCOL + 1}, id="another boot and protocol"),
    ],
)
def test_record_of_a_dead_process_is_removed(folder: Path, changes: dict[str, Any]) -> None:
    path = records.write(folder, a_record(pid=os.getpid()))
    write_raw(folder, msgspec.json.encode(a_record(**changes)), name=path.name)
    assert records.find(folder) == []
    assert not path.exists()


def test_record_of_a_process_that_waits_for_its_burial_is_removed(folder: Path, ended_process: records.Process) -> None:
    path = records.write(folder, a_record(pid=ended_process.pid, started=ended_process.started))
    assert records.find(folder) == []
    assert not path.exists()


def test_socket_of_a_dead_process_goes_with_its_record(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(folder / "a.sock"))
        precious = folder.parent / "precious.sock"
        precious.touch()
        for path in (folder / "a.sock", precious):
            records.write(folder, a_record(started=1.0, address=UnixAddress(os.fspath(path))))
        assert records.find(folder) == []
        assert os.listdir(folder) == []
        assert precious.exists()


def test_socket_in_a_temporary_folder_goes_with_it(folder: Path, tmp_path: Path) -> None:
    listener = listen(tmp_path / ("long" * 30))
    assert isinstance(listener.address, UnixAddress)
    place = Path(listener.address.path).parent
    records.write(folder, a_record(started=1.0, address=listener.address))
    assert records.find(folder) == []
    assert not place.exists()
    listener.close()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"host": "elsewhere"}, id="another machine"),
        pytest.param({"host": "elsewhere", "started": 1.0}, id="another machine's pid"),
        pytest.param({"protocol": PROTOCOL + 1}, id="another protocol"),
        pytest.param({"uid": 4242}, id="another user says so itself"),
    ],
)
def test_record_of_others_is_passed_over_and_left(folder: Path, changes: dict[str, Any]) -> None:
    path = records.write(folder, a_record(**changes))
    assert records.find(folder) == []
    assert path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_record_that_others_can_read_is_passed_over(folder: Path, mode: int) -> None:
    records.write(folder, a_record()).chmod(mode)
    assert records.find(folder) == []


def test_record_of_another_owner_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write(folder, a_record(uid=os.geteuid() + 1))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert records.find(folder) == []


def test_link_to_a_record_is_passed_over(folder: Path, tmp_path: Path) -> None:
    real = records.write(folder, a_record())
    moved = real.rename(tmp_path / "elsewhere.json")
    real.symlink_to(moved)
    assert records.find(folder) == []


def test_fifo_and_folder_do_not_stop_the_search(folder: Path) -> None:
    os.mkfifo(folder / f"1-{'0' * 16}.json", 0o600)
    (folder / f"2-{'0' * 16}.json").mkdir(mode=0o700)
    record = a_record()
    records.write(folder, record)
    assert records.find(folder) == [record]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"[" * 60_000, id="deep"),
        pytest.param(b'{"pid": "1"}', id="wrong type"),
        pytest.param(b'{"pid": 1e999, "started": NaN}', id="no number"),
        pytest.param(msgspec.json.encode(records.this_process()), id="no engine"),
    ],
)
def test_damaged_record_is_passed_over(folder: Path, data: bytes) -> None:
    write_raw(folder, data)
    assert records.find(folder) == []


def test_too_large_a_record_is_passed_over(folder: Path) -> None:
    data = msgspec.json.encode(a_record())
    write_raw(folder, data + b" " * (records.MAX_RECORD_BYTES - len(data)))
    assert len(records.find(folder)) == 1
    write_raw(folder, data + b" " * (records.MAX_RECORD_BYTES - len(data) + 1))
    assert records.find(folder) == []


@given(data=st.binary(max_size=200), cut=st.integers(0, 600), at=st.integers(0, 600))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_makes_find_raise(folder: Path, data: bytes, cut: int, at: int) -> None:
    whole = msgspec.json.encode(a_record())
    for content in (data, whole[:cut], whole[:at] + data + whole[at:]):
        path = write_raw(folder, content)
        records.find(folder)
        path.unlink(missing_ok=True)


def test_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ParameterError, match="chmod 700"):
        records.write(tmp_path / "open", a_record())


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ParameterError, match="belongs to another user"):
        records.prepare(tmp_path)


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ParameterError, match="name another folder"):
        records.prepare(tmp_path / "file" / "records")


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        pytest.param({"file_hash": HASH}, True, id="any length"),
        pytest.param({"file_hash": HASH, "context_length": 4096}, True, id="the same length"),
        pytest.param({"file_hash": HASH, "context_length": 4097}, False, id="a longer one"),
        pytest.param({"file_hash": HASH, "max_sequences": 5}, False, id="more sequences"),
        pytest.param({"file_hash": "cd" * 32}, False, id="another file"),
        pytest.param({"file_hash": ""}, False, id="an unknown file"),
    ],
)
def test_record_matches_what_its_engine_can_do(asked: dict[str, Any], fits: bool) -> None:
    assert records.matches(a_record(), **asked) is fits
    if not asked["file_hash"]:
        assert not records.matches(a_record(file_hash=""), **asked)
