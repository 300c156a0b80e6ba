"""A look into a foreign store, which can be asked later whether it would see the same again.

Links may lead from one of the store's places to another, and nowhere else.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nbllm.store.folder import is_model_file
from nbllm.store.hashes import SETTLED_NS
from nbllm.store.header import shown
from nbllm.store.parts import first_part

MAX_ENTRIES = 20_000
"""Looked at in one folder, and in all below it; one that has more is listed as far as that."""
_FRESH_S = 60.0
"""Some file systems do not stamp a folder when a file comes into it."""
_LEADS_OUT = "is a link that leads out of its store; put the folder of the file into models_dirs"
_PLAIN_TARGET = re.compile(r"(?:\.\./)*(?:[^./][^/]*/)*[^./][^/]*")
"""Of a link: "..", in a real path, only lead up while no other folder has come in between."""
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model in a foreign store.

    Attributes:
        path: the GGUF; what comes nearest to it where there is none.
        problem: why the file must not be read, without a path in it; "" when only its header can tell.
    """

    path: Path
    problem: str = ""


class Look:
    """Reads one store, and remembers the stamps of all that it read.

    Args:
        folder: the store's, which its links may not leave.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = os.path.realpath(folder)
        self._stamps: dict[str, _Stamp | None] = {}
        self._real_folders = {os.fspath(folder): self._root}
        self._made_ns, self._made_s = time.time_ns(), time.monotonic()

    def is_current(self) -> bool:
        """Whether another look would see the same; False where that cannot be told."""
        if time.monotonic() - self._made_s > _FRESH_S:
            return False
        stamps = self._stamps.items()
        return all(_stamp(path) == stamp and self._is_settled(stamp) for path, stamp in stamps)

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """Sorted by name, hidden ones left out; none where the folder is not there or is closed to this user."""
        self._note(folder)
        try:
            with os.scandir(folder) as entries:
                found = [entry for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False)]
        except (OSError, ValueError):
            return []
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)

    def subfolders(self, folder: Path) -> list[Path]:
        """Those that are no links."""
        return [folder / entry.name for entry in self.entries(folder) if entry.is_dir(follow_symlinks=False)]

    def problem_of(self, path: Path) -> str:
        """Why a file of the store cannot be read, "" if it can."""
        self._note(path)
        try:
            real = self._real(os.fspath(path))
            is_file = stat.S_ISREG(os.stat(real).st_mode)
        except OSError:
            return "is a link that leads nowhere" if path.is_symlink() else "is not there"
        if not os.path.normcase(real).startswith(os.path.join(os.path.normcase(self._root), "")):
            return _LEADS_OUT
        return "" if is_file else "is not a file"

    def beginning(self, path: Path, most_bytes: int) -> bytes:
        """Of a file; of anything else nothing, without waiting for it. Raises OSError."""
        self._note(path)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            return file.read(most_bytes) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""

    def gguf_files(self, folder: Path, *, depth: int) -> dict[str, Entry]:
        """The GGUF files in the folder and below it, by their paths from there, with slashes.

        Folders that are links are left out.

        Args:
            depth: 1 is the folder alone.
        """
        found: dict[str, Entry] = {}
        for name, is_link in self._files(folder, depth):
            if name.casefold().endswith(".gguf") and name.isprintable():
                path = folder / name
                found[name] = Entry(path, self.problem_of(path) if is_link else "")
        return found

    def _files(self, folder: Path, depth: int) -> Iterator[tuple[str, bool]]:
        """Breadth first, with whether they are links, be it to a folder."""
        waiting = [("", folder, 1)]
        num_entries = 0
        for prefix, parent, level in waiting:  # grows while it is read
            for entry in self.entries(parent):
                num_entries += 1
                if num_entries > MAX_ENTRIES:
                    return
                if not entry.is_dir(follow_symlinks=False):
                    yield prefix + entry.name, entry.is_symlink()
                elif level < depth:
                    waiting.append((f"{prefix}{entry.name}/", parent / entry.name, level + 1))

    def _real(self, path: str) -> str:
        """As os.path.realpath, for what is there, and without looking at each folder again. Raises OSError."""
        parent, name = os.path.split(path)
        real = os.path.join(self._real_folder(parent), name)
        if not stat.S_ISLNK(os.lstat(real).st_mode):
            return real
        target = os.readlink(real)
        if _PLAIN_TARGET.fullmatch(target):
            place = os.path.normpath(os.path.join(os.path.dirname(real), target))
            if not stat.S_ISLNK(os.lstat(place).st_mode):
                return os.path.join(self._real_folder(os.path.dirname(place)), os.path.basename(place))
        return os.path.realpath(real, strict=True)

    def _real_folder(self, path: str) -> str:
        if path not in self._real_folders:
            is_top = os.path.dirname(path) == path
            self._real_folders[path] = path if is_top else self._real(path)
        return self._real_folders[path]

    def _note(self, path: Path) -> None:
        name = os.fspath(path)
        if name not in self._stamps:
            self._stamps[name] = _stamp(name)

    def _is_settled(self, stamp: _Stamp | None) -> bool:
        """What was changed just before the look may have changed again within the same tick of its clock."""
        return stamp is None or abs(self._made_ns - stamp[0]) > SETTLED_NS


def _stamp(path: str) -> _Stamp | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def whole_models(files: Mapping[str, Entry]) -> dict[str, Entry]:
    """Those of the files that are models, or the first parts of split ones: these have the problems of all parts."""
    problems: dict[Path, str] = {}
    for entry in files.values():
        first = first_part(entry.path)
        if entry.problem and first != entry.path:
            problems.setdefault(first, f"its part {shown(entry.path.name)} {entry.problem}")
    return {
        name: Entry(entry.path, entry.problem or problems.get(entry.path, ""))
        for name, entry in files.items()
        if is_model_file(entry.path)
    }
