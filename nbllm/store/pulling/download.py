"""Files that arrive whole or not at all.

Each comes into `.NAME.SHA.part` beside its place, or in a folder of its own, where an interrupt leaves it and the next
pull goes on, and is moved once every file of the model is there, has its SHA-256 and passed its check.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from nbllm.store.hashes import file_hash
from nbllm.store.header import shown
from nbllm.store.pulling.errors import CutError, UnusableError
from nbllm.store.pulling.progress import OnProgress, PullProgress, Status
from nbllm.store.pulling.ranges import Opener
from nbllm.store.remote.errors import PullError

WAITS_S = (0.5, 1.0, 2.0, 4.0)
"""Between requests that brought nothing; after the last the pull ends."""
SPAN_BYTES = 16 << 30
"""Asked for at a time: the hub's servers refuse to send more than 50 GB in one answer."""
GLANCE_BYTES = 1 << 20
"""What has come of a file when it is checked for the first time."""
_SPARE_BYTES = 64 << 20
"""Left on the disk for everything else."""
_READ_BYTES = 1 << 20
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class Check(Protocol):
    def __call__(self, path: Path, *, is_whole: bool) -> None:
        """Look at a file, or at the beginning of one. Raises UnusableError."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file to get: where it goes, and what it must be.

    Attributes:
        label: what it is called for those who watch; "" is its file's name.
        part_folder: where it grows; None is beside its place.
        check: sees the first GLANCE_BYTES, and then the whole.
    """

    target: Path
    size: int
    sha256: str
    opened: Opener
    label: str = ""
    part_folder: Path | None = None
    check: Check | None = None

    @property
    def part(self) -> Path:
        folder = self.target.parent if self.part_folder is None else self.part_folder
        return folder / f".{self.target.name}.{self.sha256[:12]}.part"

    @property
    def kept_bytes(self) -> int:
        """What an earlier pull left."""
        try:
            return self.part.stat().st_size
        except OSError:
            return 0

    def progress(self, status: Status, done: int) -> PullProgress:
        return PullProgress(
            status=status, file=self.label or self.target.name, sha256=self.sha256, done=done, total=self.size
        )


def fetch_all(downloads: Sequence[Download], on_progress: OnProgress) -> None:
    """Get the files that are not here already. The folders must be held by `locked`.

    Raises:
        PullError: the disk is too full or a file fails its check, and then nothing is left; or the connection failed
            for good, or a file cannot be written or arrived damaged.
    """
    try:
        missing = [download for download in downloads if not _is_here(download, on_progress)]
        _check_space(missing)
        for download in missing:
            _remove_outdated(download)
            _fetch(download, on_progress)
        for download in downloads:
            if download.check is not None:
                download.check(download.part if download in missing else download.target, is_whole=True)
        for download in missing:
            os.replace(download.part, download.target)
    except UnusableError:
        _remove_parts(downloads)
        raise
    except OSError as exc:
        raise unwritable(exc, downloads) from exc


def _is_here(download: Download, on_progress: OnProgress) -> bool:
    try:
        if download.target.stat().st_size != download.size:
            return False
    except FileNotFoundError:
        return False
    on_progress(download.progress("checking", download.size))
    return file_hash(download.target) == download.sha256


def _check_space(missing: Sequence[Download]) -> None:
    if not missing:
        return
    needed = sum(max(0, download.size - download.kept_bytes) for download in missing)
    folder = missing[0].target.parent
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise PullError(f"{_size(needed)} are needed and {_size(free)} are free in {shown(folder)}: {_MAKE_ROOM}")


def _fetch(download: Download, on_progress: OnProgress) -> None:
    try:
        with open(download.part, "ab+", buffering=0) as file:
            _Arrival(download, file, on_progress).complete()
            os.fsync(file.fileno())
    finally:
        if not download.kept_bytes:
            with suppress(FileNotFoundError):
                download.part.unlink()


class _Arrival:
    """A file that grows until it is whole."""

    def __init__(self, download: Download, file: IO[bytes], on_progress: OnProgress) -> None:
        self._download, self._file, self._on_progress = download, file, on_progress
        self._digest: Any = hashlib.sha256()
        self._done = 0
        self._is_to_check = download.check is not None

    def complete(self) -> None:
        self._read_kept()
        furthest, failures = self._done, 0
        while self._done < self._download.size:
            why = "the answer ended early"
            try:
                self._receive()
            except CutError as exc:
                why = exc.why
            if self._done > furthest:
                furthest, failures = self._done, 0
            else:
                self._wait(failures, why)
                failures += 1
        if self._digest.hexdigest() != self._download.sha256:
            self._download.part.unlink()
            raise PullError(f"{self._download.target.name} arrived damaged: its SHA-256 is another; pull again")

    def _read_kept(self) -> None:
        self._file.seek(0)
        while chunk := self._file.read(_READ_BYTES):
            self._count(chunk)
        if self._done > self._download.size:
            self._begin_again()
        self._report()

    def _receive(self) -> None:
        last = min(self._done + SPAN_BYTES, self._download.size) - 1
        self._glance()
        with self._download.opened(self._done, last) as chunks:
            if chunks.first == 0:
                self._begin_again()
            elif chunks.first != self._done:
                raise CutError("an answer to another range")
            for data in chunks.data:
                wanted = data[: self._download.size - self._done]
                self._write(wanted)
                self._glance()
                self._report()
                if len(wanted) < len(data):
                    return

    def _glance(self) -> None:
        """Before much of a file has come that cannot be used."""
        if self._is_to_check and self._download.check is not None and self._done >= GLANCE_BYTES:
            self._is_to_check = False
            self._download.check(self._download.part, is_whole=False)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = self._file.write(left)  # unbuffered, so it may be less
            self._count(left[:written])
            left = left[written:]

    def _count(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._done += len(data)

    def _begin_again(self) -> None:
        self._file.truncate(0)
        self._digest, self._done = hashlib.sha256(), 0

    def _report(self) -> None:
        self._on_progress(self._download.progress("downloading", self._done))

    def _wait(self, failures: int, why: str) -> None:
        if failures >= len(WAITS_S):
            kept = f"{_size(self._done)} of {_size(self._download.size)} are kept"
            raise PullError(f"the connection failed ({why}); {kept}, and the next pull goes on from there")
        time.sleep(WAITS_S[failures])


def _remove_outdated(download: Download) -> None:
    """What is left of an earlier file of that name, which nobody will go on with."""
    prefix = f".{download.target.name}."
    for name in os.listdir(download.part.parent):
        if name.startswith(prefix) and name.endswith(".part") and name != download.part.name:
            with suppress(OSError):
                download.part.with_name(name).unlink()


def unwritable(exc: OSError, downloads: Sequence[Download]) -> PullError:
    """What to say of a file or folder that cannot be written. Of a full disk, all that has come is removed."""
    folder = downloads[0].target.parent
    if exc.errno not in _FULL:
        return PullError(f"{shown(exc.filename or folder)} cannot be written: {exc.strerror or exc}; {_ELSEWHERE}")
    _remove_parts(downloads)
    return PullError(f"the disk of {shown(folder)} is full, and nothing was kept: {_MAKE_ROOM}")


def _remove_parts(downloads: Sequence[Download]) -> None:
    for download in downloads:
        with suppress(OSError):
            download.part.unlink()


_ELSEWHERE = "set NBLLM_MODELS_DIR to a folder that you may write to"
_MAKE_ROOM = "make room, or set NBLLM_MODELS_DIR to a folder on another disk"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
