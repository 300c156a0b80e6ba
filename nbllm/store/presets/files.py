"""The folder of the presets, read. A file is parsed again only when it has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nbllm.config import Config
from nbllm.core.presets import Preset
from nbllm.errors import InvalidRequestError
from nbllm.store.files import beginning
from nbllm.store.hashes import SETTLED_NS
from nbllm.store.header import shown
from nbllm.store.presets import naming, tomlfile

FOLDER = ".presets"
MAX_ENTRIES = 5_000
_MAX_BYTES = 4_000_000
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the folder.

    Attributes:
        preset: None for a damaged one.
        problem: what is wrong with it, without a path; "" if nothing is.
    """

    path: Path
    preset: Preset | None = None
    problem: str = ""


class Shelf(dict[str, Entry]):
    """Presets by name. It is shared, and not to be changed."""

    @cached_property
    def _by_folded(self) -> dict[str, Entry]:
        return {naming.folded(name): entry for name, entry in self.items()}

    def meant(self, name: str) -> Entry | None:
        """The one of that name, with or without ":latest", in any case."""
        return self._by_folded.get(naming.folded(name))


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading a file came to, and a stamp by which another reading can be saved; None is no such thing."""

    entry: Entry
    stamp: _Stamp | None


class _DamagedError(Exception):
    """Why a file is no preset."""


_seen: dict[Path, tuple[dict[str, _Read], Shelf]] = {}  # assigning an entry is atomic, so threads need no lock


def folder_of(config: Config) -> Path:
    return config.models_dir.absolute() / FOLDER


def entries(config: Config) -> Shelf:
    """The presets by name, and the damaged ones by the name that their files would give them, sorted."""
    folder = folder_of(config)
    known, shelf = _seen.get(folder, ({}, Shelf()))
    reads = {name: _current(folder, name, known.get(name)) for name in _file_names(folder)}
    if len(reads) != len(known) or any(read is not known.get(name) for name, read in reads.items()):
        shelf = _shelf(reads)
        _seen[folder] = reads, shelf
    return shelf


def _shelf(reads: Mapping[str, _Read]) -> Shelf:
    found: dict[str, Entry] = {}
    taken: dict[str, str] = {}
    for name, read in reads.items():
        entry, called = read.entry, _called(name)
        first = taken.setdefault(naming.folded(called), name)
        if first != name:
            called = shown(name)
            entry = Entry(entry.path, problem=f"means the same model as {shown(first)}; remove one of them")
        found[called] = entry
    return Shelf(sorted(found.items()))


def _called(file: str) -> str:
    try:
        return naming.named_by(file)
    except InvalidRequestError:
        return shown(file.removesuffix(naming.SUFFIX))


def _file_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry, _ in zip(found, range(MAX_ENTRIES), strict=False)]
    except (OSError, ValueError):  # not there, or closed to this user
        return []
    return sorted(name for name in names if name.endswith(naming.SUFFIX) and not name.startswith("."))


def _current(folder: Path, name: str, known: _Read | None) -> _Read:
    """From the last reading, if the file has not changed since."""
    try:
        status = os.stat(os.path.join(folder, name))
    except OSError as exc:
        return _Read(Entry(folder / name, problem=f"cannot be read: {exc.strerror or exc}"), None)
    stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
    if known is not None and known.stamp == stamp:
        return known
    path, is_settled = folder / name, abs(time.time_ns() - status.st_mtime_ns) > SETTLED_NS
    try:
        entry = Entry(path, _parsed(path))
    except _DamagedError as exc:
        entry = Entry(path, problem=str(exc))
    except OSError as exc:  # may go without a trace in the stamp
        return _Read(Entry(path, problem=f"cannot be read: {exc.strerror or exc}"), None)
    return _Read(entry, stamp if is_settled else None)


def _parsed(path: Path) -> Preset:
    data = _data(path)
    try:
        return tomlfile.parse(data.decode("utf-8"), name=naming.named_by(path.name), folder=path.parent)
    except UnicodeDecodeError as exc:
        raise _DamagedError("is not UTF-8") from exc
    except InvalidRequestError as exc:
        raise _DamagedError(str(exc)) from exc


def _data(path: Path) -> bytes:
    try:
        data = beginning(path, _MAX_BYTES + 1)
    except ValueError as exc:
        raise _DamagedError("is not a file") from exc
    if len(data) > _MAX_BYTES:
        raise _DamagedError(f"has more than {_MAX_BYTES:,} bytes")
    return data
