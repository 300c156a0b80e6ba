"""What the process may use, read from fake /proc and /sys trees, and once from a real cgroup."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.config.cgroups import cgroups
from nbllm.engine.machine import available_memory, busy_elsewhere, usable_cores

GIB = 1 << 30
V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture(autouse=True)
def _large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 CPUs and 64 GiB, so that only the limits of the fake tree bind."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def topology(pairs: dict[int, str], name: str = "core_cpus_list") -> dict[str, str]:
    return {f"sys/devices/system/cpu/cpu{cpu}/topology/{name}": text + "\n" for cpu, text in pairs.items()}


V2_JOB = {"proc/self/cgroup": "0::/job\n", "proc/self/mountinfo": V2_MOUNT}
V2_ROOT = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2_MOUNT}
V1_MOUNT = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
HALVES = {cpu: f"{cpu % 8},{cpu % 8 + 8}" for cpu in range(16)}
NEIGHBOURS = {cpu: f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}" for cpu in range(16)}

CORE_TREES = {
    "nothing": ({}, 16),
    "v2": (V2_JOB | {"sys/fs/cgroup/job/cpu.max": "350000 100000\n"}, 3),
    "v2-below-one-core": (V2_ROOT | {"sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
    "v2-no-limit": (V2_ROOT | {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
    "v2-ancestor": (
        {
            "proc/self/cgroup": "0::/a/b/c\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/b/c/cpu.max": "400000 100000\n",
        },
        2,
    ),
    "v2-without-mountinfo": ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "500000 100000"}, 5),
    "v2-other-cgroup": (
        V2_JOB | {"sys/fs/cgroup/other/cpu.max": "100000 100000"},
        16,
    ),
    "v2-outside-its-namespace": (
        V2_ROOT
        | {
            "proc/self/cgroup": "0::/../../x\n",
            "sys/fs/cgroup/cpu.max": "400000 100000",
            "sys/x/cpu.max": "100000 100000",
        },
        4,
    ),
    "v1": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/job\n1:name=systemd:/other\n",
            "proc/self/mountinfo": V1_MOUNT,
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "v1-container-at-the-mount-root": (
        {
            "proc/self/cgroup": "3:cpu:/docker/abc\n",
            "proc/self/mountinfo": "33 31 0:30 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        6,
    ),
    "v1-container-of-unknown-path": (
        {
            "proc/self/cgroup": "3:cpu:/docker/abc\n",
            "proc/self/mountinfo": "33 31 0:30 / /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        6,
    ),
    "v1-mount-point-with-a-space": (
        {
            "proc/self/cgroup": "3:cpu:/\n",
            "proc/self/mountinfo": "33 31 0:30 / /my\\040groups/cpu ro - cgroup cgroup rw,cpu\n",
            "my groups/cpu/cpu.cfs_quota_us": "700000",
            "my groups/cpu/cpu.cfs_period_us": "100000",
        },
        7,
    ),
    "hybrid": (
        {
            "proc/self/cgroup": "4:memory:/m\n1:cpu:/c\n0::/u\n",
            "proc/self/mountinfo": "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "300000",
            "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/u/cpu.max": "max 100000",
        },
        3,
    ),
    "hyper-threads": (topology(HALVES), 8),
    "hyper-threads-old-name": (topology(NEIGHBOURS, "thread_siblings_list"), 8),
    "hyper-threads-and-quota": (
        topology(HALVES) | V2_ROOT | {"sys/fs/cgroup/cpu.max": "1200000 100000"},
        8,
    ),
    "topology-of-nonsense": (topology(dict.fromkeys(range(16), "0-99999999999")), 16),
}


@pytest.mark.parametrize(("files", "cores"), CORE_TREES.values(), ids=CORE_TREES.keys())
def test_usable_cores_follows_the_narrowest_limit(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert usable_cores(write(tmp_path, files)) == cores


def test_usable_cores_counts_siblings_in_the_affinity_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, topology(HALVES))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 8, 3}, raising=False)
    assert usable_cores(tmp_path) == 2


def test_usable_cores_sees_a_limit_that_changes(tmp_path: Path) -> None:
    tree = {"proc/self/cgroup": "0::/job\n", "proc/self/mountinfo": V2_MOUNT}
    write(tmp_path, tree | {"sys/fs/cgroup/job/cpu.max": "200000 100000"})
    assert usable_cores(tmp_path) == 2
    write(tmp_path, {"sys/fs/cgroup/job/cpu.max": "500000 100000"})
    assert usable_cores(tmp_path) == 5
    write(tmp_path, {"proc/self/cgroup": "0::/moved\n", "sys/fs/cgroup/moved/cpu.max": "100000 100000"})
    assert usable_cores(tmp_path) == 1


def test_usable_cores_without_affinity_asks_psutil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 5)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: [0, 1, 2], raising=False)
    assert usable_cores(tmp_path) == 3
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    assert usable_cores(tmp_path) == 5


V1_MEMORY = {
    "proc/self/cgroup": "4:memory:/a/b\n",
    "proc/self/mountinfo": "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
}
V2_MEMORY = {"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": V2_MOUNT}
MEMORY_TREES = {
    "nothing": ({}, 64 * GIB),
    "v2": (
        V2_MEMORY
        | {
            "sys/fs/cgroup/a/b/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/a/b/memory.current": f"{5 * GIB}\n",
            "sys/fs/cgroup/a/b/memory.stat": f"anon 1\ninactive_file {2 * GIB}\ntotal_inactive_file 77\n",
        },
        5 * GIB,
    ),
    "v2-ancestor": (
        V2_MEMORY
        | {
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/a/memory.current": f"{1 * GIB}\n",
        },
        3 * GIB,
    ),
    "v2-high": (
        V2_MEMORY | {"sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/b/memory.high": f"{2 * GIB}"},
        2 * GIB,
    ),
    "v2-over-its-limit": (
        V2_MEMORY | {"sys/fs/cgroup/a/b/memory.max": "1000", "sys/fs/cgroup/a/b/memory.current": "2000"},
        0,
    ),
    "v2-more-cache-than-usage": (
        V2_MEMORY
        | {
            "sys/fs/cgroup/a/b/memory.max": "1000",
            "sys/fs/cgroup/a/b/memory.current": "20",
            "sys/fs/cgroup/a/b/memory.stat": "inactive_file 50",
        },
        1000,
    ),
    "v1": (
        V1_MEMORY
        | {
            "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": f"{8 * GIB}\n",
            "sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": f"{5 * GIB}\n",
            "sys/fs/cgroup/memory/a/b/memory.stat": f"inactive_file 77\ntotal_inactive_file {1 * GIB}\n",
        },
        4 * GIB,
    ),
    "v1-no-limit": (
        V1_MEMORY | {"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n"},
        64 * GIB,
    ),
    "odd": (
        V2_MEMORY
        | {
            "sys/fs/cgroup/a/b/memory.max": "many",
            "sys/fs/cgroup/a/memory.max": "-5",
            "sys/fs/cgroup/memory.max": "",
        },
        64 * GIB,
    ),
}


@pytest.mark.parametrize(("files", "left"), MEMORY_TREES.values(), ids=MEMORY_TREES.keys())
def test_available_memory_follows_the_narrowest_limit(tmp_path: Path, files: dict[str, str], left: int) -> None:
    assert available_memory(write(tmp_path, files)) == left


def test_limits_that_cannot_be_read_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, V2_MEMORY)
    for name in ("cpu.max", "memory.max"):
        (tmp_path / "sys/fs/cgroup/a/b" / name).mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_bytes(b"\xff\xfe\x00")
    assert usable_cores(tmp_path) == 16
    assert available_memory(tmp_path) == 64 * GIB


@given(
    st.lists(st.text(st.sampled_from("0123:,/. -\nacgroup2pu max"), max_size=80), min_size=4, max_size=4),
)
def test_nonsense_never_raises(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    root = tmp_path_factory.mktemp("root")
    names = ("proc/self/cgroup", "proc/self/mountinfo", "sys/fs/cgroup/cpu.max", "sys/fs/cgroup/memory.max")
    write(root, dict(zip(names, texts, strict=True)))
    assert 1 <= usable_cores(root) <= 16
    assert 0 <= available_memory(root) <= 64 * GIB


@pytest.fixture
def one_cpu_cgroup() -> Iterator[Path]:
    """A real cgroup limited to one CPU's time."""
    parents = cgroups(Path("/"))
    attempts = [(folder, "cpu.max", "100000 100000") for folder in parents.unified[-1:]]
    attempts += [(folder, "cpu.cfs_quota_us", "100000") for folder in parents.cpu[-1:]]
    for parent, name, text in attempts:
        folder = parent / f"nbllm-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / name).exists():
                (folder / name).write_text(text)
                yield folder
                return
        except OSError:
            continue
        finally:
            remove(folder)
    pytest.skip("this user cannot make a cgroup with a CPU limit here")


def remove(folder: Path) -> None:
    for _ in range(100):
        try:
            return folder.rmdir()
        except OSError:  # the kernel lets go of a process that has ended a little later
            time.sleep(0.01)


def test_usable_cores_in_a_real_cgroup_of_one_cpu(one_cpu_cgroup: Path) -> None:
    program = (
        "import os, sys, pathlib\n"
        "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from nbllm.engine.machine import usable_cores\n"
        "print(usable_cores())\n"
    )
    command = [sys.executable, "-c", program, str(one_cpu_cgroup)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("1\n", "")


@pytest.mark.parametrize(
    ("loadavg", "busy"),
    [
        pytest.param("0.1 0.2 0.3 5/300 1234\n", 3, id="without the own two"),
        pytest.param("0.1 0.2 0.3 1/300 1234\n", 0, id="fewer than the own"),
        pytest.param("0.1 0.2 0.3\n", 0, id="cut short"),
        pytest.param("a b c d/e f\n", 0, id="nonsense"),
        pytest.param("", 0, id="empty"),
    ],
)
def test_busy_elsewhere_counts_what_others_run(tmp_path: Path, loadavg: str, busy: int) -> None:
    tasks = {"1": "1 (a) R 0", "2": "2 (b) (c)) R 0", "3": "3 (R) S 0", "4": "cut"}
    write(tmp_path, {f"proc/self/task/{task}/stat": text for task, text in tasks.items()})
    write(tmp_path, {"proc/loadavg": loadavg})
    assert busy_elsewhere(tmp_path) == busy


def test_busy_elsewhere_is_nothing_without_proc(tmp_path: Path) -> None:
    assert busy_elsewhere(tmp_path) == 0
