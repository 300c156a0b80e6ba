"""Answers kept on disk, so that what is asked the same again has its answer at once, without a model.

    FOLDER/answers.sqlite     one row an answer; `cachefile` draws it

A row that is not right is as good as not there, and a file that cannot be used costs only time, which is told once.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.session.stored import DamagedError, Entry, dumped, dumped_value, is_storable, loaded

if TYPE_CHECKING:
    import sqlite3

    from nbllm.core import Constraint
    from nbllm.session.cachefile import CacheFile
    from nbllm.session.response import Response

MAX_ANSWER_BYTES = 16 << 20
MAX_BYTES = 1 << 30
_TRIMMED = 0.9
"""Part of the bound that is left when it was passed, so that the next answers need not be made room for."""
_PUTS_A_CHECK = 64
_ROW_BYTES = 256
"""About what a row takes beside its answer: its key twice, and its place in the indexes."""
_KEYS_A_QUERY = 500
_KEY = re.compile(r"[0-9a-f]{64}")
_DAY_S = 86_400.0
_PUT = "INSERT OR REPLACE INTO answers (key, data, size, used) VALUES (?, ?, ?, ?)"
_FIND = "SELECT key, CAST(data AS BLOB), CAST(used AS REAL) FROM answers WHERE key IN ({})"
_USE = "UPDATE answers SET used = ? WHERE key IN ({})"
_SIZE = "SELECT coalesce(sum(size), 0) FROM answers"
_TRIM = """
DELETE FROM answers WHERE rowid IN (
    SELECT rowid FROM (SELECT rowid, size, sum(size) OVER (ORDER BY used, rowid) AS total FROM answers)
    WHERE total - size < ?
)
"""
_logger = logging.getLogger("nbllm.session")


def default_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("nbllm") / "answers"


class _Row(NamedTuple):
    key: str
    data: bytes
    used: float


class AnswerCache:
    """Answers that are kept on disk: of cells with `--cache`, and of tables' rows. `nbllm.cache` is where they all are.

    Safe on any thread, and beside other processes. Each answer is on disk when it has been put.

    Args:
        folder: made with the first answer; the user's cache if not given.
        max_bytes: of all answers; when they are more, those that were not used for longest go. Looked at rarely, so
            it may be passed for a while.
    """

    def __init__(self, folder: Path | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self._given = folder
        self._max_bytes = max_bytes
        self._puts = 0

    def __repr__(self) -> str:
        count, problem = self.num_answers, self._file.problem
        held = f"{count:,} answer{'s' * (count != 1)}, {_size(self.num_bytes)}, in {self.path}"
        return f"<nbllm.AnswerCache of {held}{problem and f', which cannot be written: {problem}'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file for itself."""
        return partial(AnswerCache, self._given, max_bytes=self._max_bytes), ()

    @cached_property
    def folder(self) -> Path:
        return default_folder() if self._given is None else Path(self._given).absolute()

    @property
    def path(self) -> Path:
        """The file, which may not be there yet."""
        return self.folder / "answers.sqlite"

    @property
    def num_answers(self) -> int:
        return self._file.read(_count) or 0

    @property
    def num_bytes(self) -> int:
        """About what the answers take on disk."""
        return self._file.read(_total) or 0

    def get(self, key: str, constraint: Constraint | None = None) -> Response | None:
        """The answer under this key, None if there is none that is right.

        Args:
            constraint: of the request; what the answer's text means is parsed by it.
        """
        found = self.find(key, constraint)
        return None if found is None else found[0]

    def find(self, key: str, constraint: Constraint | None = None) -> tuple[Response, Mapping[str, Any]] | None:
        """`get` with the notes that were put with the answer."""
        entry = self.find_many([key]).get(key)
        return None if entry is None or entry.answer is None else (entry.response(constraint), entry.notes)

    def find_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        """What is kept under those of the keys that something right is kept under."""
        wanted = list(dict.fromkeys(map(_checked, keys)))
        found: dict[str, Entry] = {}
        for start in range(0, len(wanted), _KEYS_A_QUERY):
            rows = self._file.read(partial(_select, wanted[start : start + _KEYS_A_QUERY])) or []
            found |= _entries(rows)
            self._note_use([row.key for row in rows if abs(time.time() - row.used) > _DAY_S])
        return found

    def put(self, key: str, response: Response, notes: Mapping[str, Any] | None = None) -> None:
        """Keep an answer, if it is whole and the only one to its prompt. A disk that refuses it costs only time.

        Args:
            notes: what JSON can hold, given back by `find`.
        """
        _checked(key)
        if is_storable(response) and not response.tool_calls:  # a row has no place for calls
            self._put(key, dumped(key, response, notes or {}))

    def put_value(self, key: str, value: Any) -> None:
        """Keep what is no Response and JSON can hold; `Entry.value` gives it back."""
        self._put(_checked(key), dumped_value(key, value))

    def clear(self) -> int:
        """Remove all answers; returns how many there were."""
        num_removed = self._file.write(_remove_all)
        with suppress(OSError):
            self._file.damaged_path.unlink()
        if num_removed:
            self._file.write(_shrink)
        return num_removed or 0

    @cached_property
    def _file(self) -> CacheFile:
        from nbllm.session.cachefile import CacheFile

        return CacheFile(self.path)

    def _put(self, key: str, data: bytes) -> None:
        if len(data) > MAX_ANSWER_BYTES:
            return
        row = (key, data, len(data) + _ROW_BYTES, time.time())
        self._file.write(lambda connection: connection.execute(_PUT, row), begin=True)
        if self._puts % _PUTS_A_CHECK == 0:
            self._trim()
        self._puts += 1

    def _trim(self) -> None:
        total = self.num_bytes
        if total > self._max_bytes:
            excess = total - _TRIMMED * self._max_bytes
            self._file.write(lambda connection: connection.execute(_TRIM, (excess,)))

    def _note_use(self, keys: list[str]) -> None:
        """Once a day, so that reading writes almost never."""
        if keys:
            use = _USE.format(_marks(keys))
            self._file.write(lambda connection: connection.execute(use, (time.time(), *keys)))


cache = AnswerCache()
"""The user's own, as `nbllm.cache`."""


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r:.100} is not a key: take one from nbllm.session.cachekey.key")
    return key


def _select(keys: list[str], connection: sqlite3.Connection) -> list[_Row]:
    return [_Row(*row) for row in connection.execute(_FIND.format(_marks(keys)), keys).fetchall()]


def _entries(rows: list[_Row]) -> dict[str, Entry]:
    return dict(_right(rows))


def _right(rows: list[_Row]) -> Iterator[tuple[str, Entry]]:
    for row in rows:
        try:
            yield row.key, loaded(row.key, row.data)
        except DamagedError:
            _logger.debug("the answer under %s is left out: damaged", row.key)


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])


def _total(connection: sqlite3.Connection) -> int:
    return int(connection.execute(_SIZE).fetchone()[0])


def _remove_all(connection: sqlite3.Connection) -> int:
    return connection.execute("DELETE FROM answers").rowcount


def _shrink(connection: sqlite3.Connection) -> None:
    """Give the disk back what was removed, and leave none of it readable in the file."""
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _marks(keys: list[str]) -> str:
    return ", ".join("?" * len(keys))


def _size(num_bytes: int) -> str:
    for unit, amount in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if num_bytes >= amount:
            return f"{num_bytes / amount:.1f} {unit}"
    return f"{num_bytes} bytes"
