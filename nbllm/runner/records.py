"""Which engines of this user can be reached, told by one small file for each in the runtime folder.

    <pid>-<random>.json     {"protocol": 1, "kind": "kernel", "pid": 4711, ..., "token": "..."}     mode 0600

A file counts only if this user wrote it, nobody else can read it, and the process that it names is alive: anything
else in the folder is passed over, and what a process of this machine left behind at its death is removed.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from nbllm._version import __version__
from nbllm.core import EngineInfo
from nbllm.runner.listener import Address, UnixAddress
from nbllm.runner.messages import PROTOCOL
from nbllm.store.files import own_data, own_folder, replace_file

MAX_RECORD_BYTES = 1 << 16
MAX_FILES = 1000
"""Looked at in one folder: one that holds more is not a folder of records."""
_FILE_NAME = re.compile(r"[0-9]{1,10}-[0-9a-f]{16}\.json")
_SAME_START_S = 2.0
"""The start of a process is reckoned from the wall clock on some platforms, which may be set."""

Kind = Literal["kernel", "runner"]
_T = TypeVar("_T")


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process such that no other is ever taken for it: a pid comes again, together with the start it does not.

    Attributes:
        host: the machine, and on Linux the container: pids of another one mean nothing here.
        boot: what is different after each start of the machine.
        started: in seconds, since the boot or since 1970, as the platform counts.
    """

    pid: int
    started: float
    host: str
    boot: str
    uid: int


class Record(Process, frozen=True, kw_only=True):
    """An engine that can be reached: who runs it, where it listens, and what it can do.

    Attributes:
        token: what a client says first, so that nobody who cannot read this file can ask.
        file_hash: SHA-256 of the model, as `store.model_hash` gives it.
        created: seconds since 1970.
    """

    kind: Kind
    address: Address
    token: str
    file_hash: str
    path: str
    name: str
    context_length: int
    max_sequences: int
    kv_type: str
    kv_tokens: int
    protocol: int = PROTOCOL
    version: str = __version__
    created: float = msgspec.field(default_factory=time.time)

    def __repr__(self) -> str:
        return f"<Record of {self.name} in {self.kind} {self.pid}>"  # a token shows nowhere


def new_record(kind: Kind, info: EngineInfo, *, address: Address, token: str, file_hash: str) -> Record:
    """What this process says of an engine that it serves."""
    own = this_process()
    return Record(
        kind=kind,
        pid=own.pid,
        started=own.started,
        host=own.host,
        boot=own.boot,
        uid=own.uid,
        address=address,
        token=token,
        file_hash=file_hash,
        path=info.model.path,
        name=info.model.name,
        context_length=info.context_length,
        max_sequences=info.max_sequences,
        kv_type=info.kv_type,
        kv_tokens=info.kv_tokens,
    )


def prepare(folder: Path) -> Path:
    """Make the folder if it is missing, closed to others.

    Raises:
        ParameterError: it cannot be made, or others could put files into it.
    """
    return own_folder(folder, setting="runtime_dir")


def write(folder: Path, record: Record) -> Path:
    """Put the record into the folder in one piece, readable by this user only.

    Raises:
        ParameterError: see `prepare`.
        OSError: it cannot be written.
    """
    path = prepare(folder) / f"{record.pid}-{secrets.token_hex(8)}.json"
    replace_file(path, msgspec.json.encode(record), prefix=".record-")  # mkstemp makes it 0600
    return path


def remove(path: Path) -> None:
    """Take a record back. One that is gone is no error."""
    with suppress(OSError):
        path.unlink()


def find(folder: Path, *, file_hash: str | None = None, kinds: tuple[Kind, ...] = ("kernel", "runner")) -> list[Record]:
    """The records of live engines that this process can talk to, the newest first; removes those of dead ones.

    Never raises for what lies in the folder.
    """
    found = []
    for path, data in own_files(folder, _FILE_NAME):
        process = decoded(data, Process)
        if process is None or not is_near(process):
            continue
        if not is_alive(process):
            _discard(path, data, folder)
            continue
        record = decoded(data, Record)
        if record is not None and record.protocol == PROTOCOL and record.kind in kinds:
            found.append(record)
    wanted = [record for record in found if file_hash is None or record.file_hash == file_hash]
    return sorted(wanted, key=lambda record: record.created, reverse=True)


def matches(record: Record, *, file_hash: str, context_length: int | None = None, max_sequences: int = 1) -> bool:
    """Whether the engine can stand in for one that would be loaded with these; None asks for no certain length."""
    return (
        bool(file_hash)
        and record.file_hash == file_hash
        and record.context_length >= (context_length or 0)
        and record.max_sequences >= max_sequences
    )


def this_process() -> Process:
    pid = os.getpid()
    return Process(pid=pid, started=_start_of(pid) or 0.0, host=this_host(), boot=_boot(), uid=_uid())


def is_near(process: Process) -> bool:
    """Whether it is, or was, a process of this user on this machine, so that its pid means something here."""
    return process.host == this_host() and process.uid == _uid()


def is_alive(process: Process) -> bool:
    """Whether this very process still runs on this machine; an ended one that nobody has waited for does not."""
    started = _start_of(process.pid) if process.boot == _boot() else None
    return started is not None and abs(started - process.started) < _SAME_START_S


@cache
def this_host() -> str:
    with suppress(OSError):  # not Linux
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


# ---- files


def own_files(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[Path, bytes]]:
    """Those of such names that this user wrote for nobody else to read, with what is in them."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry, _ in zip(entries, range(MAX_FILES), strict=False)]
    except OSError:
        return
    for name in names:
        if pattern.fullmatch(name) and (data := own_data(folder / name, most_bytes=MAX_RECORD_BYTES)):
            yield folder / name, data


def decoded(data: bytes, kind: type[_T]) -> _T | None:
    """None for what is no such thing."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _discard(path: Path, data: bytes, folder: Path) -> None:
    """Remove a dead process's record, and the socket that it can no longer remove itself."""
    remove(path)
    record = decoded(data, Record)
    if record is not None:
        discard_socket(record.address, folder)


def discard_socket(address: Address, folder: Path) -> None:
    """Remove the socket of an engine that died, from the folder or from the temporary one in its place."""
    if not isinstance(address, UnixAddress):
        return
    path = Path(address.path)
    is_temporary = path.parent.name.startswith("nbllm-")
    if path.suffix != ".sock" or not (is_temporary or path.parent == folder):
        return
    with suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
            if is_temporary:
                path.parent.rmdir()


# ---- processes


def _uid() -> int:
    return os.geteuid() if os.name == "posix" else 0


@cache
def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    import psutil

    return str(round(psutil.boot_time(), -1))


def _start_of(pid: int) -> float | None:
    """When the process started; None if there is none, or one that has ended."""
    if not 0 < pid < 2**31:
        return None
    if Path("/proc/self/stat").exists():  # in ticks since the boot, which no change of the wall clock moves
        return _start_on_linux(pid)
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def _start_on_linux(pid: int) -> float | None:
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if state in b"ZX" else int(numbers[18]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
