"""What this process may use of the machine: cores and memory, as its affinity and its cgroups allow.

An operating system tells a container the host's numbers, and a decode thread too many costs more than three too few.
All of it is cheap enough (a few small files) to be asked again while an engine runs, so that `docker update` is seen.

Every function takes the folder to look for `/proc` and `/sys` in, and ignores a limit that it cannot read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.config.cgroups import MemoryLimit, cgroups, memory_limits, read_text, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/")
_MAX_CPU = 1 << 16  # a damaged CPU list ("0-99999999999") must not fill the memory


def usable_cores(root: Path = _ROOT) -> int:
    """Physical cores that this process may keep busy at one time; at least 1."""
    return max(1, min([_physical_cores(root), *_cpu_quotas(root)]))


def busy_elsewhere(root: Path = _ROOT) -> int:
    """Threads of other processes that run or want to run at this moment; 0 where the system does not tell."""
    runnable = read_text(root / "proc/loadavg").split()[3:4]
    total = whole(runnable[0].partition("/")[0]) if runnable else None
    return max(0, total - _own_running(root)) if total else 0


def available_memory(root: Path = _ROOT) -> int:
    """Bytes that this process can still take without swapping and without being killed by its cgroup."""
    return max(0, min([_machine_memory(root), *map(_left, memory_limits(root))]))


# Cores


def _own_running(root: Path) -> int:
    states = (read_text(path).rpartition(")")[2].split()[:1] for path in (root / "proc/self/task").glob("*/stat"))
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
        siblings = _cpu_list(read_text(topology / name))
        if cpu in siblings:
            return siblings
    return frozenset({cpu})


def _cpu_list(text: str) -> frozenset[int]:
    """The CPUs in a kernel list such as "0-3,8"; none if it is not one."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        bounds = whole(first), whole(last or first)
        if bounds[0] is None or bounds[1] is None or bounds[1] >= _MAX_CPU:
            return frozenset()
        cpus.update(range(bounds[0], bounds[1] + 1))
    return frozenset(cpus)


def _cpu_quotas(root: Path) -> Iterator[int]:
    groups = cgroups(root)
    for folder in groups.unified:
        quota, _, period = read_text(folder / "cpu.max").strip().partition(" ")
        yield from _whole_cores(quota, period)
    for folder in groups.cpu:
        yield from _whole_cores(read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us"))


def _whole_cores(quota: str, period: str) -> Iterator[int]:
    """Rounded down: a thread that waits at a barrier for a throttled one is worse than no thread."""
    quota_us, period_us = whole(quota), whole(period)
    if quota_us and period_us:
        yield max(1, quota_us // period_us)


# Memory


def _machine_memory(root: Path) -> int:
    """From the kernel where it says; importing psutil takes as long as the rest of a load's checks together."""
    for line in read_text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        kib = whole(value.removesuffix("kB")) if name == "MemAvailable" else None
        if kib is not None:
            return kib * 1024
    import psutil

    return int(psutil.virtual_memory().available)


def _left(limit: MemoryLimit) -> int:
    used_bytes = whole(read_text(limit.folder / limit.usage)) or 0
    cache_bytes = _stat(read_text(limit.folder / "memory.stat"), limit.reclaimable)
    return limit.num_bytes - max(0, used_bytes - cache_bytes)


def _stat(text: str, key: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return whole(value) or 0
    return 0
