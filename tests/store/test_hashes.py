from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from nbllm.errors import ModelLoadError
from nbllm.store import file_hash, hashes

OLD_NS = 10**18


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that has not changed for long."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return path


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hashes.json"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_file_hash_is_sha256(model: Path, cache_file: Path) -> None:
    assert file_hash(model, cache_file=cache_file) == sha(b"weights")


def test_file_hash_default_place(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)

    file_hash(model)

    assert (tmp_path / "nbllm" / "hashes.json").exists()


def test_file_hash_unchanged_file_is_not_read_again(
    model: Path, cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = file_hash(model, cache_file=cache_file)
    monkeypatch.setattr(hashes, "_digest", lambda path, stamp: pytest.fail("read again"))

    assert file_hash(str(model), cache_file=cache_file) == first
    assert [path.name for path in cache_file.parent.iterdir()] == ["hashes.json"]


@pytest.mark.parametrize(
    ("data", "mtime_ns"), [(b"heavier", OLD_NS + 1), (b"longer weights", OLD_NS)], ids=["time", "size"]
)
def test_file_hash_changed_file(model: Path, cache_file: Path, data: bytes, mtime_ns: int) -> None:
    file_hash(model, cache_file=cache_file)
    model.write_bytes(data)
    os.utime(model, ns=(mtime_ns, mtime_ns))

    assert file_hash(model, cache_file=cache_file) == sha(data)


def test_file_hash_replaced_file(model: Path, cache_file: Path) -> None:
    file_hash(model, cache_file=cache_file)
    other = model.with_name("other")
    other.write_bytes(b"WEIGHTS")
    os.utime(other, ns=(OLD_NS, OLD_NS))
    other.replace(model)

    assert file_hash(model, cache_file=cache_file) == sha(b"WEIGHTS")


def test_file_hash_of_a_file_just_written_is_not_remembered(tmp_path: Path, cache_file: Path) -> None:
    path = tmp_path / "new.gguf"
    path.write_bytes(b"new")

    assert file_hash(path, cache_file=cache_file) == sha(b"new")
    assert not cache_file.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b'{"version": 2, "files": {}}',
        b'{"version": 1, "files": []}',
        b'{"version": 1, "files": {"MODEL": [7, 1000000000000000000]}}',
        b'{"version": 1, "files": {"MODEL": [7, 1000000000000000000, 1, "no hash"]}}',
        b'{"version": 1, "files": {"MODEL": [[], {}, null, 1]}}',
        b"[" * 100_000,
    ],
    ids=["empty", "not-utf8", "cut", "list", "version", "files", "short", "no-hash", "types", "deep"],
)
def test_file_hash_damaged_cache_is_rewritten(model: Path, cache_file: Path, content: bytes) -> None:
    cache_file.parent.mkdir()
    cache_file.write_bytes(content.replace(b"MODEL", os.fsencode(model)))

    assert file_hash(model, cache_file=cache_file) == sha(b"weights")
    assert json.loads(cache_file.read_bytes())["files"][os.path.realpath(model)][3] == sha(b"weights")


def test_file_hash_cache_keeps_other_files_and_drops_the_oldest(
    tmp_path: Path, cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "MAX_ENTRIES", 2)
    paths = [tmp_path / f"{number}.gguf" for number in range(3)]
    for path in paths:
        path.write_bytes(b"x")
        os.utime(path, ns=(OLD_NS, OLD_NS))
        file_hash(path, cache_file=cache_file)

    assert list(json.loads(cache_file.read_bytes())["files"]) == [os.path.realpath(path) for path in paths[1:]]


def test_file_hash_cache_that_cannot_be_written_is_no_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_bytes(b"")

    assert file_hash(model, cache_file=tmp_path / "blocked" / "hashes.json") == sha(b"weights")


@pytest.mark.parametrize("name", ["none.gguf", "a\0b", "."], ids=["missing", "nul", "folder"])
def test_file_hash_unreadable(tmp_path: Path, cache_file: Path, name: str) -> None:
    with pytest.raises(ModelLoadError, match="cannot be read"):
        file_hash(tmp_path / name, cache_file=cache_file)
