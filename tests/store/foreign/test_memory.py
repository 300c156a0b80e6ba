from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.store.foreign.memory import total_memory
from tests.store import gguf_writer as g


def test_total_memory_is_the_machines(tmp_path: Path) -> None:
    assert total_memory(tmp_path) > 1 << 28


@pytest.mark.parametrize(
    "file", ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"], ids=["v2", "v1"]
)
def test_total_memory_is_the_containers(file: str, tmp_path: Path) -> None:
    g.write(tmp_path / file, b"123456\n")
    assert total_memory(tmp_path) == 123456


@pytest.mark.parametrize("text", [b"max\n", b"9223372036854771712\n", b"", b"\xff"])
def test_total_memory_without_a_limit(text: bytes, tmp_path: Path) -> None:
    g.write(tmp_path / "sys/fs/cgroup/memory.max", text)
    assert total_memory(tmp_path) == total_memory(tmp_path / "none")
