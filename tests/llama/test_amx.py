"""The guard against a compiler whose AMX code crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.llama.amx import extra_buffers_are_safe


@pytest.mark.parametrize(
    ("compiler", "safe"),
    [
        ("12.2.0", False),
        ("12.4.0", True),
        ("11.4.0", False),
        ("11.5.0", True),
        ("13.2.0", False),
        ("13.3.0", True),
        ("14.1.0", True),
        ("10.2.1", False),
    ],
)
def test_compilers_with_the_bug_are_told(tmp_path: Path, compiler: str, safe: bool) -> None:
    (tmp_path / "libggml-cpu.so").write_bytes(b"\0GCC: (Debian 1-1) " + compiler.encode() + b"\0")
    assert extra_buffers_are_safe("AVX = 1 | AMX_INT8 = 1 |", tmp_path) is safe


def test_processor_without_amx_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "libggml-cpu.so").write_bytes(b"GCC: (Debian) 12.2.0")
    assert extra_buffers_are_safe("AVX = 1 |", tmp_path)


def test_other_compiler_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "libggml-cpu.so").write_bytes(b"clang version 17")
    assert extra_buffers_are_safe("AMX_INT8 = 1", tmp_path)
