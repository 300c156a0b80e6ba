"""The core lease: engines that decode at the same moment on one machine divide its cores between them.

Threads of llama.cpp spin at a barrier after every operation, so two engines with all cores each are slower together
than one alone by a factor of four. Every engine therefore says, in a table that all users of the machine share, until
when it is decoding, and takes its share of the cores for that long.

The table is a world-writable file (`/dev/shm/nbllm-cores-v1`) of 256 records of 16 bytes, no header:

    offset  type      meaning
    0       4 bytes   b"nbc1"
    4       uint32    cores that the process could use if it were alone
    8       float64   decoding until then, on the machine's monotonic clock

all little-endian; a free record is zeros. A process holds a record for its lifetime by a POSIX lock on its bytes,
which the operating system takes back at its death. It holds no secret, and nothing in it is trusted: whatever is
written there costs speed for as long as it is being written, never an error and never the last core.

What it cannot see: containers with a `/dev/shm` of their own have a table of their own, and processes bound to
different CPUs are counted as if they shared them.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
import struct
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # Windows: every engine takes all its cores
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_RECORDS = 256
MAX_HOLD_S = 10.0  # what claims to last longer is garbage, or was written before a reboot

_FILE_NAME = "nbllm-cores-v1"
_RECORD = struct.Struct("<4sId")
_MAGIC = b"nbc1"
_FREE = bytes(_RECORD.size)
_CHECK_EVERY_S = 2.0  # systemd empties /dev/shm of a user's files when the user logs out (RemoveIPC)
_TRIES = 16  # locks asked for at a time: each call gives up the GIL, which a busy main thread may keep for 5 ms
_NO_RECORD = MAX_RECORDS  # ranks a process without a record last
_MAX_WANTS = 2**32 - 1
_OPEN_FLAGS = (
    os.O_RDWR
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO, or a file under another user's F_SETLEASE, would make open() wait
)

_log = logging.getLogger(__name__)


def default_path() -> Path:
    """The table that all users of this machine share."""
    for folder in (Path("/dev/shm"), Path("/tmp")):  # not $TMPDIR: a user may have one of his own
        if folder.is_dir():
            return folder / _FILE_NAME
    import tempfile

    return Path(tempfile.gettempdir()) / _FILE_NAME


def divide(cores: int, wants: Sequence[int]) -> list[int]:
    """Equal shares of `cores`, none above what it wants and none below 1; what is left over goes to the first ones."""
    shares = [1] * len(wants)
    left = cores
    # The most modest first: what they leave is divided among the others, and the first record comes last.
    order = sorted(range(len(wants)), key=lambda index: (wants[index], -index))
    for served, index in enumerate(order):
        shares[index] = max(1, min(wants[index], left // (len(order) - served)))
        left = max(0, left - shares[index])
    return shares


def decoding(table: bytes, now: float) -> dict[int, int]:
    """Which records belong to engines that are decoding now, each with the cores it could use."""
    whole = len(table) - len(table) % _RECORD.size
    busy: dict[int, int] = {}
    for number, (magic, wants, until) in enumerate(_RECORD.iter_unpack(table[:whole])):
        if magic == _MAGIC and now < until <= now + MAX_HOLD_S:
            busy[number] = max(1, wants)
    return busy


class CoreLease:
    """This process's place in the machine's table of decoding engines; never raises.

    All leases of a process on one table share one record: its engines take turns on its decode thread. Any thread may
    call, about every 100 ms while decoding (each call gives up the GIL twice).

    Args:
        path: the table; `default_path()` if None. A file that not everybody may write to is not taken for a table.
        clock: seconds, the same for every process of the machine.
    """

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path or default_path()
        self._clock = clock
        self._warned = False
        self._held: list[_Table] = []  # at most one; a list, so that the finalizer need not hold the lease
        self._finalizer = weakref.finalize(self, _drop, self._held)
        with _lock:
            self._attach(clock())

    @property
    def shared(self) -> bool:
        """Whether the other engines of the machine see this one."""
        return any(table.record is not None for table in self._held)

    def renew(self, cores: int, hold_s: float) -> int:
        """Say that this process decodes for the next `hold_s` seconds (10 at most), and return its share.

        `cores` is what it could use if it were alone: `machine.usable_cores()`, or fewer if the user said so.
        """
        cores = max(1, cores)
        with _lock:
            now = self._clock()
            if now >= self._check_at or self._pid != os.getpid():
                self._attach(now)
            for table in self._held:
                try:
                    table.write(_RECORD.pack(_MAGIC, min(cores, _MAX_WANTS), now + min(hold_s, MAX_HOLD_S)))
                    return _share(cores, table.record, decoding(table.read(), now))
                except OSError as exc:
                    self._detach(exc)
                    break
        return cores

    def release(self) -> None:
        """Say that this process has stopped decoding."""
        with _lock:
            for table in self._held:
                table.clear()

    def close(self) -> None:
        """Give the record back; a closed lease grants all cores. Closing twice is fine."""
        with _lock:
            self._check_at, self._pid = math.inf, os.getpid()
            self._finalizer()

    def _attach(self, now: float) -> None:
        """Hold the table that is at the path now, and a record of it."""
        self._check_at, self._pid = now + _CHECK_EVERY_S, os.getpid()
        if fcntl is None or not self._finalizer.alive:
            return
        try:
            table = _table_at(self._path)
            _drop(self._held)
            self._held.append(table)
            table.claim()
        except (OSError, ValueError) as exc:  # ValueError: a path with a zero byte
            self._detach(exc)

    def _detach(self, problem: OSError | ValueError) -> None:
        """Go without the table until the next look at it, and say so once."""
        _drop(self._held)
        _log.log(
            logging.DEBUG if self._warned else logging.WARNING,
            "The engines of this machine cannot share its cores, which makes them slow when several decode at once: "
            "%s: %s. Delete it, or set cores_file to a file that does not exist yet.",
            self._path,
            getattr(problem, "strerror", None) or problem,
        )
        self._warned = True


def _share(cores: int, record: int | None, busy: dict[int, int]) -> int:
    mine = _NO_RECORD if record is None else record
    busy[mine] = cores
    numbers = sorted(busy)
    return divide(cores, [busy[number] for number in numbers])[numbers.index(mine)]


class _Table:
    """An open table and this process's record in it, for every lease of the process that uses it.

    Read and written by calls, not mapped: whoever truncates a mapped file kills the processes that read it (SIGBUS).
    """

    def __init__(self, fd: int, place: _Place) -> None:
        self.fd = fd
        self.place = place
        self.users = 0
        self.record: int | None = None

    def claim(self) -> None:
        """Lock a record, the one of before if it can be had; again and again, because locks get lost.

        The system drops all of a process's locks on a file when *any* descriptor of that file is closed in it.
        """
        first = os.urandom(1)[0] % MAX_RECORDS if self.record is None else self.record
        numbers = ((first + step) % MAX_RECORDS for step in range(_TRIES))
        self.record = next((number for number in numbers if self._lock(number)), None)

    def _lock(self, number: int) -> bool:
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _RECORD.size, number * _RECORD.size)
        except OSError as exc:
            if exc.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def read(self) -> bytes:
        return os.pread(self.fd, MAX_RECORDS * _RECORD.size, 0)

    def write(self, data: bytes) -> None:
        if self.record is not None:
            os.pwrite(self.fd, data, self.record * _RECORD.size)

    def clear(self) -> None:
        with suppress(OSError):  # a claim that cannot be withdrawn runs out
            self.write(_FREE)


# A table is known by its device and inode: a second descriptor of one file would cost the first its locks.
_Place = tuple[int, int]
_tables: dict[_Place, _Table] = {}
_lock = threading.RLock()  # a finalizer may run at any allocation, also while its thread holds the lock


def _table_at(path: Path) -> _Table:
    """The table at `path`, with one more user; made if there is nothing."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        table = _created(path)
    else:
        table = _tables.get((status.st_dev, status.st_ino)) or _opened(path, status)
    table.users += 1
    return table


def _created(path: Path) -> _Table:
    fd = os.open(path, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
    with _closing_on_error(fd):
        os.fchmod(fd, 0o666)  # whatever the umask says: other users' engines write here too
        return _known(fd)


def _opened(path: Path, status: os.stat_result) -> _Table:
    _check(status)  # before open(), which has side effects on some devices
    fd = os.open(path, _OPEN_FLAGS)  # without O_CREAT, which fs.protected_regular refuses for others' files
    with _closing_on_error(fd):
        _check(os.fstat(fd))  # it may be another file by now
        return _known(fd)


def _check(status: os.stat_result) -> None:
    """Refuse what is not a table: writing into it could do harm."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    if status.st_mode & 0o666 != 0o666:
        raise OSError("not everybody may write to it")
    if status.st_nlink != 1:
        raise OSError("it is a link to another file")


def _known(fd: int) -> _Table:
    status = os.fstat(fd)
    place = (status.st_dev, status.st_ino)
    table = _tables.setdefault(place, _Table(fd, place))
    if table.fd != fd:  # moved here after lstat; closing costs the record's lock until the next claim
        os.close(fd)
    return table


@contextmanager
def _closing_on_error(fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        raise


def _drop(held: list[_Table]) -> None:
    """Let go of a table; the last user closes it, which frees the record."""
    with _lock:
        while held:
            table = held.pop()
            table.users -= 1
            if not table.users:
                table.clear()
                del _tables[table.place]
                os.close(table.fd)


def _after_fork() -> None:
    """In a child: the parent's records are not ours (locks are not inherited), and its lock may be held for ever."""
    global _lock
    _lock = threading.RLock()
    for table in _tables.values():
        table.record = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
