"""A disk that gets full, or fails, under a download."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.store.pulling import download

if TYPE_CHECKING:
    import pytest


class _File:
    """A file of a disk with so much room; what goes beyond it is an error, as the system's."""

    def __init__(self, file: Any, room: list[int], code: int) -> None:
        self._file, self._room, self._code = file, room, code

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        fits = min(len(data), self._room[0])
        if not fits:
            raise OSError(self._code, os.strerror(self._code))
        self._room[0] -= fits
        return int(self._file.write(data[:fits]))


def fill_disk(monkeypatch: pytest.MonkeyPatch, room: int, code: int = errno.ENOSPC) -> None:
    """Let all downloads together write `room` bytes before the error of that code comes."""
    left = [room]

    def opened(path: Path, mode: str, buffering: int) -> _File:
        return _File(open(path, mode, buffering=buffering), left, code)

    monkeypatch.setattr(download, "open", opened, raising=False)
