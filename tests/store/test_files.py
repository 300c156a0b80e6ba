from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbllm.store.files import replace_file


def test_replace_file_leaves_the_new_bytes_alone(tmp_path: Path) -> None:
    target = tmp_path / "a"
    replace_file(target, b"old")
    replace_file(target, b"new", prefix=".a.", suffix=".part")
    assert target.read_bytes() == b"new"
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [target]


def test_replace_file_that_fails_leaves_the_old_bytes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("full")

    target = tmp_path / "a"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="full"):
        replace_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [target]
