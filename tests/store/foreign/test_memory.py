from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.store.foreign.memory import total_memory
from tests.store import gguf_writer as g


def test_total_memory_is_the_machines(tmp_path: Path) -> None:
    assert total_memory(tmp_path) > 1 << 28


V1 = "0::/\n4:memory:/docker/abc\n"
V1_MOUNT = "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def machine(root: Path, membership: str, mounts: str, limits: dict[str, bytes]) -> Path:
    g.write(root / "proc/self/cgroup", membership.encode())
    g.write(root / "proc/self/mountinfo", mounts.encode())
    for file, data in limits.items():
        g.write(root / "sys/fs/cgroup" / file, data)
    return root


@pytest.mark.parametrize(
    ("membership", "mounts", "limits"),
    [
        pytest.param("0::/\n", V2_MOUNT, {"memory.max": b"123456\n"}, id="v2"),
        pytest.param("0::/a/b\n", V2_MOUNT, {"a/memory.max": b"123456\n", "a/b/memory.max": b"max\n"}, id="v2 below"),
        pytest.param("0::/a\n", V2_MOUNT, {"a/memory.high": b"123456\n"}, id="v2 slowed down"),
        pytest.param(V1, V1_MOUNT, {"memory/memory.limit_in_bytes": b"123456\n"}, id="v1"),
        pytest.param(V1, V1_MOUNT, {"memory/docker/abc/memory.limit_in_bytes": b"123456\n"}, id="v1 below"),
    ],
)
def test_total_memory_is_the_containers(membership: str, mounts: str, limits: dict[str, bytes], tmp_path: Path) -> None:
    assert total_memory(machine(tmp_path, membership, mounts, limits)) == 123456


@pytest.mark.parametrize("text", [b"max\n", b"9223372036854771712\n", b"", b"\xff"])
def test_total_memory_without_a_limit(text: bytes, tmp_path: Path) -> None:
    root = machine(tmp_path / "machine", "0::/\n", V2_MOUNT, {"memory.max": text})
    assert total_memory(root) == total_memory(tmp_path / "none")
