"""What this process may use of the machine: cores and memory, as its affinity and its cgroups allow.

An operating system tells a container the host's numbers, and a decode thread too many costs more than three too few.
All of it is cheap enough (a few small files) to be asked again while an engine runs, so that `docker update` is seen.

Every function takes the folder to look for `/proc` and `/sys` in, and ignores a limit that it cannot read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ROOT = Path("/")
_MAX_CPU = 1 << 16  # a damaged CPU list ("0-99999999999") must not fill the memory


def usable_cores(root: Path = _ROOT) -> int:
    """Physical cores that this process may keep busy at one time; at least 1."""
    return max(1, min([_physical_cores(root), *_cpu_quotas(root)]))


def busy_elsewhere(root: Path = _ROOT) -> int:
    """Threads of other processes that run or want to run at this moment; 0 where the system does not tell."""
    runnable = _read(root / "proc/loadavg").split()[3:4]
    total = _whole(runnable[0].partition("/")[0]) if runnable else None
    return max(0, total - _own_running(root)) if total else 0


def available_memory(root: Path = _ROOT) -> int:
    """Bytes that this process can still take without swapping and without being killed by its cgroup."""
    return max(0, min([_machine_memory(root), *_memory_left(root)]))


# Cores


def _own_running(root: Path) -> int:
    states = (_read(path).rpartition(")")[2].split()[:1] for path in (root / "proc/self/task").glob("*/stat"))
    return sum(state == ["R"] for state in states)


def _physical_cores(root: Path) -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    if affinity is None:
        return _physical_cores_elsewhere()
    return _count_cores(root, frozenset(affinity(0)))


def _physical_cores_elsewhere() -> int:
    """macOS and Windows, where /sys does not tell which hyper-threads share a core."""
    import psutil

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    with suppress(AttributeError, OSError, psutil.Error):  # macOS has no affinity
        return min(physical, len(psutil.Process().cpu_affinity()))
    return physical


@lru_cache(maxsize=8)
def _count_cores(root: Path, cpus: frozenset[int]) -> int:
    """Cores under these CPUs. Kept: two files a CPU are too many to read again and again on a large machine."""
    return len({_siblings(root, cpu) for cpu in cpus})


def _siblings(root: Path, cpu: int) -> frozenset[int]:
    topology = root / "sys/devices/system/cpu" / f"cpu{cpu}" / "topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is the name before Linux 5.5
        siblings = _cpu_list(_read(topology / name))
        if cpu in siblings:
            return siblings
    return frozenset({cpu})


def _cpu_list(text: str) -> frozenset[int]:
    """The CPUs in a kernel list such as "0-3,8"; none if it is not one."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        bounds = _whole(first), _whole(last or first)
        if bounds[0] is None or bounds[1] is None or bounds[1] >= _MAX_CPU:
            return frozenset()
        cpus.update(range(bounds[0], bounds[1] + 1))
    return frozenset(cpus)


def _cpu_quotas(root: Path) -> Iterator[int]:
    cgroups = _cgroups(root)
    for folder in cgroups.unified:
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        yield from _whole_cores(quota, period)
    for folder in cgroups.cpu:
        yield from _whole_cores(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _whole_cores(quota: str, period: str) -> Iterator[int]:
    """Rounded down: a thread that waits at a barrier for a throttled one is worse than no thread."""
    quota_us, period_us = _whole(quota), _whole(period)
    if quota_us and period_us:
        yield max(1, quota_us // period_us)


# Memory


def _machine_memory(root: Path) -> int:
    """From the kernel where it says; importing psutil takes as long as the rest of a load's checks together."""
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        kib = _whole(value.removesuffix("kB")) if name == "MemAvailable" else None
        if kib is not None:
            return kib * 1024
    import psutil

    return int(psutil.virtual_memory().available)


def _memory_left(root: Path) -> Iterator[int]:
    cgroups = _cgroups(root)
    for folder in cgroups.unified:
        # At memory.high the kernel does not kill, it slows the process down to nearly nothing.
        for limit in ("memory.max", "memory.high"):
            yield from _left(folder, limit, "memory.current", "inactive_file")
    for folder in cgroups.memory:
        yield from _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    limit_bytes = _whole(_read(folder / limit))
    if limit_bytes is None:
        return
    used_bytes = _whole(_read(folder / usage)) or 0
    cache_bytes = _stat(_read(folder / "memory.stat"), reclaimable)
    yield limit_bytes - max(0, used_bytes - cache_bytes)


def _stat(text: str, key: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return _whole(value) or 0
    return 0


# Cgroups


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


@dataclass(frozen=True, slots=True)
class _Cgroups:
    """Folders whose limits bind this process, by the files that are in them: version 2, version 1 cpu and memory."""

    unified: tuple[Path, ...]
    cpu: tuple[Path, ...]
    memory: tuple[Path, ...]


def _cgroups(root: Path) -> _Cgroups:
    return _located(root, _read(root / "proc/self/cgroup"))


@lru_cache(maxsize=8)
def _located(root: Path, membership: str) -> _Cgroups:
    """Kept for as long as /proc/self/cgroup says the same: hosts of many containers have thousands of mounts."""
    mounts = list(_mounts(root, _read(root / "proc/self/mountinfo")))
    paths = dict(_memberships(membership))
    folders = {name: _folders(root, mounts, name, paths) for name in ("", "cpu", "memory")}
    return _Cgroups(unified=folders[""], cpu=folders["cpu"], memory=folders["memory"])


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


# Files


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""


def _whole(text: str) -> int | None:
    """A number of 0 or more; None for "max", "-1" and whatever else is not one."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number >= 0 else None
