"""The SQLite file of the answers: opened when it is needed, begun anew when it is damaged, shared with other processes.

    answers.sqlite            TABLE answers (key TEXT PRIMARY KEY, data BLOB, size INTEGER, used REAL)
    answers.sqlite.damaged    what was there and could not be read, kept for whoever wants to look at it

`data` is what `stored` makes, `size` about what the row takes on disk, `used` seconds since 1970.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from nbllm.session.cachemount import is_remote

BUSY_S = 5.0
"""How long another process is waited for."""
_REST = 4
"""How many times the time that was lost passes until it is tried again, so that a locked file takes a part of the time
and not all of it."""
_BESIDE = ("-wal", "-shm", "-journal")
_TABLE = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY NOT NULL, data BLOB NOT NULL,"
    " size INTEGER NOT NULL, used REAL NOT NULL)",
    "CREATE INDEX IF NOT EXISTS answers_by_use ON answers (used, size)",
    "SELECT key, data, size, used FROM answers LIMIT 0",
)
_SHARED = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL")
_ALONE = (
    "PRAGMA locking_mode=EXCLUSIVE",  # without it SQLite does not look into a file that was left in WAL mode
    "PRAGMA journal_mode=DELETE",
    "PRAGMA locking_mode=NORMAL",
    "PRAGMA synchronous=FULL",
)
"""For a file system that refuses the memory that WAL shares, or whose other machines would not see it."""
_Result = TypeVar("_Result")
_logger = logging.getLogger("nbllm.session")


class _Identity(NamedTuple):
    device: int
    number: int


class _ForeignError(Exception):
    """It is a database, and not one of answers."""


class CacheFile:
    """Runs what is to be done with the database, and makes little of it when that fails. Safe on any thread.

    Each statement is a transaction of its own, so that a process that is killed leaves nothing half done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._finalizer: Callable[[], object] | None = None
        self._identity: _Identity | None = None
        self._reads, self._writes = _Patience(), _Patience()
        self._last_trouble = ""
        _files.add(self)

    @property
    def damaged_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.damaged")

    @property
    def problem(self) -> str:
        """Why nothing can be written, or could not when it was last tried; "" if nothing is known to be in the way."""
        return _obstacle(self.path) or self._last_trouble

    def read(self, act: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        """What `act` returns; None if there is no file, or trouble with it."""
        return self._attempt(act, self._reads, begin=False)

    def write(self, act: Callable[[sqlite3.Connection], _Result], *, begin: bool = False) -> _Result | None:
        """What `act` returns, None after trouble. A file that is not there is made if `begin` says so.

        What is lost is told once in a process, for whoever relies on it would notice only when it is missing.
        """
        return self._attempt(act, self._writes, begin=begin)

    def close(self) -> None:
        """Let the file go until it is needed again."""
        with _lock:
            self._connection = None
            if self._finalizer is not None:
                self._finalizer()

    def _attempt(
        self, act: Callable[[sqlite3.Connection], _Result], patience: _Patience, *, begin: bool
    ) -> _Result | None:
        with _lock:
            if patience.is_over:
                return None
            begun = time.monotonic()
            try:
                result = self._tried(act, begin=begin)
            except (sqlite3.Error, OSError, _ForeignError) as error:
                self.close()
                if begin:
                    self._tell(error)
                if not isinstance(error, FileNotFoundError):
                    _logger.debug("%s is left out: %s", self.path, error)
                    patience.lost(time.monotonic() - begun)
                return None
            if begin:
                self._last_trouble = ""
            return result

    def _tried(self, act: Callable[[sqlite3.Connection], _Result], *, begin: bool) -> _Result:
        try:
            return act(self._connected(begin=begin))
        except (sqlite3.DatabaseError, _ForeignError) as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)
        return act(self._connected(begin=begin))

    def _connected(self, *, begin: bool) -> sqlite3.Connection:
        if begin:
            _make(self.path)
        identity = _identity(self.path)
        if self._connection is not None and identity == self._identity:
            return self._connection
        self.close()  # another process has set it aside, or someone has deleted it
        self._identity = identity
        connection = self._connection = _opened(self.path)
        self._finalizer = weakref.finalize(self, _close, connection)
        return connection

    def _tell(self, error: Exception) -> None:
        self._last_trouble = getattr(error, "strerror", None) or str(error)
        if self.path not in _told:
            _told.add(self.path)
            _logger.warning(
                "answers are not kept, so asking again takes as long again: %s cannot be written (%s)",
                self.path, self.problem,
            )  # fmt: skip

    def _set_aside(self, error: Exception) -> None:
        damaged = self._identity
        self.close()
        if _identity(self.path) != damaged:  # another process was first
            return
        for suffix in _BESIDE:  # first: a new database would take them for its own
            with suppress(FileNotFoundError):
                os.unlink(f"{self.path}{suffix}")
        os.replace(self.path, self.damaged_path)
        _logger.warning("the kept answers were damaged (%s) and are begun anew; see %s", error, self.damaged_path)


class _Patience:
    """Ends for a while when time was lost."""

    def __init__(self) -> None:
        self._resumes_at = 0.0

    @property
    def is_over(self) -> bool:
        return time.monotonic() < self._resumes_at

    def lost(self, seconds: float) -> None:
        self._resumes_at = time.monotonic() + _REST * seconds


def _make(path: Path) -> None:
    """A new file that is nobody else's; what SQLite puts beside it has the same rights."""
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _obstacle(path: Path) -> str:
    """What can be seen to be in a file's way without touching anything."""
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), Path(path.anchor))
    if there == path and not path.is_file():
        return "not a file"
    if there != path and not there.is_dir():
        return f"{there} is no folder"
    return "" if os.access(there, os.W_OK) else f"{there} is read-only"


def _identity(path: Path) -> _Identity:
    """Found without opening the file, for closing it again would end SQLite's locks on it."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a file")
    return _Identity(status.st_dev, status.st_ino)


def _opened(path: Path) -> sqlite3.Connection:
    if not is_remote(path.parent):
        try:
            return _set_up(path, _SHARED)
        except sqlite3.OperationalError as error:
            if _code(error) == sqlite3.SQLITE_BUSY:
                raise
    return _set_up(path, _ALONE)


def _set_up(path: Path, pragmas: tuple[str, ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in pragmas:
            connection.execute(pragma).fetchall()
        _make_table(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_table(connection: sqlite3.Connection) -> None:
    try:
        for statement in _TABLE:
            connection.execute(statement)
    except sqlite3.OperationalError as error:
        if _code(error) == sqlite3.SQLITE_ERROR:
            raise _ForeignError("a database of something else") from error
        raise


def _is_damage(error: Exception) -> bool:
    return isinstance(error, _ForeignError) or _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: Exception) -> int | None:
    """SQLite's, without the part that says more; errors of Python's module have none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _close(connection: sqlite3.Connection) -> None:
    with _lock, suppress(sqlite3.Error):
        connection.close()


_lock = threading.RLock()
"""One for all files, which are few, so that a fork can wait until none is in use."""
_files: weakref.WeakSet[CacheFile] = weakref.WeakSet()
_told: set[Path] = set()
"""Of which it was said that they cannot be written."""


def _before_fork() -> None:
    """SQLite's books of its locks would be wrong in the child, also for a connection that the child opens itself."""
    _lock.acquire()
    for file in tuple(_files):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)
