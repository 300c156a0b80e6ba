"""The file that holds the keys' hashes: who may read it, how it is replaced, and who writes next.

keys.json        0600, only ever replaced whole; its folder is made 0700
keys.json.lock   empty, 0600; whoever writes holds it
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from nbllm.errors import NbllmError
from nbllm.store.files import replace_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MAX_BYTES = 16 * 2**20
_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.02
_COARSE_CLOCK_NS = 2_000_000_000  # FAT's, the coarsest modification time that a file system keeps


class KeyFileError(NbllmError):
    """The keys cannot be read or written, so no key opens anything until somebody has looked."""


class Stamp(NamedTuple):
    """What differs between two states of a file."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int  # also moved by chmod and chown


class Contents(NamedTuple):
    """The file's bytes. Unless `is_settled`, a later change could still leave the same stamp."""

    data: bytes
    stamp: Stamp
    is_settled: bool


class KeyFile:
    """Every method raises KeyFileError, and nothing else, for what is wrong with the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> Stamp | None:
        """Of the file as it is now; None where there is none."""
        try:
            return _stamp(os.stat(self.path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            raise self._failed("read", exc) from exc

    def read(self) -> Contents | None:
        """None where there is no file.

        Raises:
            KeyFileError: it cannot be read, is no plain file, or others can read it or own it.
        """
        try:
            # NONBLOCK: opening a named pipe would wait for a writer
            handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            raise self._failed("read", exc) from exc
        try:
            status = os.fstat(handle)
            self._check(status)
            with os.fdopen(handle, "rb", closefd=False) as file:  # not of a folder, hence after the check
                data = file.read(_MAX_BYTES + 1)
        except OSError as exc:
            raise self._failed("read", exc) from exc
        finally:
            os.close(handle)
        if len(data) > _MAX_BYTES:
            raise KeyFileError(f"the keys file {self.path} is over {_MAX_BYTES >> 20} MB: it is not a keys file")
        age_ns = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
        return Contents(data, _stamp(status), age_ns > _COARSE_CLOCK_NS)

    def replace(self, data: bytes) -> None:
        """Put `data` in the file's place; where that fails the old file stays. Call it inside `locked()`."""
        try:
            # a link stays a link; mkstemp, which replace_file uses, makes files 0600
            replace_file(Path(os.path.realpath(self.path)), data, prefix=f".{self.path.name}.", suffix=".part")
        except OSError as exc:
            raise self._failed("write", exc, "; the keys are as they were") from exc

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold off every other writer, also of other processes. Makes the folder if there is none."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            release = self._acquired()
        except (OSError, ValueError) as exc:
            raise self._failed("write", exc, "; the keys are as they were") from exc
        try:
            yield
        finally:
            release()

    def _acquired(self) -> _Lock:
        path = self.path.with_name(self.path.name + ".lock")
        attempt = _exclusively_created if fcntl is None else _flocked
        deadline = time.monotonic() + _LOCK_WAIT_S
        while (lock := attempt(path)) is None:
            if time.monotonic() > deadline:
                raise KeyFileError(f"another process has been writing the keys for long: if none does, delete {path}")
            time.sleep(_LOCK_POLL_S)
        return lock

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{self.path} is not a file: give keys_file a path that ends in a file's name")
        if not hasattr(os, "geteuid"):  # Windows: a user's folders are closed to others by their access lists
            return
        if status.st_uid != os.geteuid():
            raise KeyFileError(f"the keys file {self.path} belongs to another user: move it away and make new keys")
        if status.st_mode & 0o077:
            raise KeyFileError(f"others may use the keys file {self.path}: close it with  chmod 600 '{self.path}'")

    def _failed(self, verb: str, exc: OSError | ValueError, outcome: str = "") -> KeyFileError:
        reason = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        return KeyFileError(f"cannot {verb} the keys file {self.path}: {reason}{outcome}")


class _Lock:
    """A held lock; calling it lets go."""

    def __init__(self, handle: int, made: Path | None = None) -> None:
        self._handle = handle
        self._made = made

    def __call__(self) -> None:
        os.close(self._handle)  # which also ends a flock
        if self._made is not None:
            with suppress(OSError):
                self._made.unlink()


def _flocked(path: Path) -> _Lock | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as exc:
        os.close(handle)
        if isinstance(exc, OSError) and exc.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    return _Lock(handle)


def _exclusively_created(path: Path) -> _Lock | None:
    try:
        return _Lock(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), made=path)
    except FileExistsError:
        return None
    except PermissionError:
        if os.name == "nt" and path.exists():  # there, a name stays taken for a moment after its file was deleted
            return None
        raise


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
