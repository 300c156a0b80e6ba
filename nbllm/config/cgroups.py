"""The control groups of this process: where the limits lie that an administrator or a container sets.

Every function takes the folder to look for `/proc` and `/sys` in, and what cannot be read is no limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Folders whose limits bind this process, by the files that are in them: version 2, version 1 cpu and memory."""

    unified: tuple[Path, ...]
    cpu: tuple[Path, ...]
    memory: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """Bytes that all processes of a cgroup together may have; `folder` tells what of them is taken.

    Attributes:
        usage: the name of the file with the bytes that are taken.
        reclaimable: the key in memory.stat of the part of those that the kernel takes back before it kills.
    """

    folder: Path
    num_bytes: int
    usage: str
    reclaimable: str


def cgroups(root: Path) -> Cgroups:
    return _located(root, read_text(root / "proc/self/cgroup"))


def memory_limits(root: Path) -> Iterator[MemoryLimit]:
    """Of every cgroup that this process is in."""
    groups = cgroups(root)
    # At memory.high the kernel does not kill, it slows the process down to nearly nothing.
    names = [(folder, name) for folder in groups.unified for name in ("memory.max", "memory.high")]
    for folder, name in names:
        yield from _limit(folder, name, "memory.current", "inactive_file")
    for folder in groups.memory:
        yield from _limit(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _limit(folder: Path, name: str, usage: str, reclaimable: str) -> Iterator[MemoryLimit]:
    num_bytes = whole(read_text(folder / name))
    if num_bytes is not None:
        yield MemoryLimit(folder, num_bytes, usage, reclaimable)


# Files


def read_text(path: Path) -> str:
    """All of a small file; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""


def whole(text: str) -> int | None:
    """A number of 0 or more; None for "max", "-1" and whatever else is not one."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number >= 0 else None


# Mounts


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted cgroup hierarchy: `root` of it is visible at `point`. Version 2 counts as the controller ""."""

    controllers: frozenset[str]
    root: PurePosixPath
    point: Path

    def holds(self, path: PurePosixPath) -> bool:
        return path.is_relative_to(self.root)

    def folders(self, path: PurePosixPath) -> Iterator[Path]:
        """The cgroup's folder and its visible ancestors' up to the mount point.

        A container may see its own cgroup at the mount point while its path is the host's, or begins with "..".
        Folders that are not there cost nothing and say nothing.
        """
        parts = path.relative_to(self.root).parts if self.holds(path) else ()
        if ".." in parts:
            parts = ()
        for depth in range(len(parts), -1, -1):
            yield self.point.joinpath(*parts[:depth])


@lru_cache(maxsize=8)
def _located(root: Path, membership: str) -> Cgroups:
    """Kept for as long as /proc/self/cgroup says the same: hosts of many containers have thousands of mounts."""
    mounts = list(_mounts(root, read_text(root / "proc/self/mountinfo")))
    paths = dict(_memberships(membership))
    folders = {name: _folders(root, mounts, name, paths) for name in ("", "cpu", "memory")}
    return Cgroups(unified=folders[""], cpu=folders["cpu"], memory=folders["memory"])


def _memberships(text: str) -> Iterator[tuple[str, PurePosixPath]]:
    """Pairs of controller and path from lines such as "3:cpu,cpuacct:/a/b" and "0::/a/b"."""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and path.startswith("/"):
            for controller in controllers.split(","):
                yield controller, PurePosixPath(path)


def _mounts(root: Path, mountinfo: str) -> Iterator[_Mount]:
    """The cgroup mounts in lines such as "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, *_), options = left.split(" "), right.split(" "), right.rpartition(" ")[2]
        if len(fields) >= 5 and kind in ("cgroup", "cgroup2"):
            controllers = options.split(",") if kind == "cgroup" else [""]
            point = _unescaped(fields[4]).lstrip("/")
            yield _Mount(frozenset(controllers), PurePosixPath(_unescaped(fields[3])), root / point)


def _unescaped(text: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def _folders(
    root: Path, mounts: Iterable[_Mount], controller: str, paths: dict[str, PurePosixPath]
) -> tuple[Path, ...]:
    path = paths.get(controller)
    if path is None:
        return ()
    able = [mount for mount in mounts if controller in mount.controllers]
    usual = _Mount(frozenset({controller}), PurePosixPath("/"), root / "sys/fs/cgroup" / controller)
    chosen = [mount for mount in able if mount.holds(path)] or able[:1] or [usual]
    return tuple(dict.fromkeys(folder for mount in chosen for folder in mount.folders(path)))
