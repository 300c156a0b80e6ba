from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from nbllm.errors import InvalidRequestError
from nbllm.runner import records
from nbllm.runner.holders import holders, note_of_holders
from nbllm.runner.listener import UnixAddress
from nbllm.testing import ScriptedEngine


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "m.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def folder(tmp_path: Path, file: Path) -> Path:
    """One with the records of a kernel that is the parent of this process, which lives, and of this process."""
    folder = records.prepare(tmp_path / "records")
    made = records.new_record(
        "kernel", ScriptedEngine().info, address=UnixAddress("/run/e.sock"), token="secret", file_hash="ab" * 32
    )
    own = msgspec.structs.replace(made, path=str(file))
    started = records._start_of(os.getppid())
    assert started is not None
    records.write(folder, own)
    records.write(folder, msgspec.structs.replace(own, pid=os.getppid(), started=started))
    return folder


def test_holders_are_other_processes_with_the_file(folder: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.parent)
    for path in (file, tmp_path / "link" / file.name):
        assert [record.pid for record in holders([path], folder)] == [os.getppid()]
    assert holders([tmp_path / "other.gguf"], folder) == []


def test_note_says_who_holds_it(folder: Path, file: Path) -> None:
    said = note_of_holders("m", [file], folder, platform="linux")
    assert said.startswith(f"m is loaded in kernel process {os.getppid()}: it goes on answering there")
    assert note_of_holders("m", [file.with_name("other.gguf")], folder, platform="win32") == ""
    assert note_of_holders("m", [file], folder.parent / "nowhere", platform="win32") == ""


def test_windows_keeps_what_is_in_use(folder: Path, file: Path) -> None:
    with pytest.raises(InvalidRequestError, match=f"process {os.getppid()}, and Windows keeps"):
        note_of_holders("m", [file], folder, platform="win32")
