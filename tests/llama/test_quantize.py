"""What refuses to be written in another format; the rest is in tests/session/tuning/test_process.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.errors import ModelLoadError
from nbllm.llama.library import library
from nbllm.llama.quantize import FORMATS, quantize
from nbllm.store.ggml import FILE_TYPES


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_are_llama_cpps(kind: str) -> None:
    assert FILE_TYPES[getattr(library().api, FORMATS[kind])] == kind


def test_file_that_is_not_there_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"none\.gguf cannot be written as Q4_0: ."):
        quantize(tmp_path / "none.gguf", tmp_path / "out.gguf", "Q4_0", threads=1)
    assert not (tmp_path / "out.gguf").exists()
