"""LoRA adapters in llama.cpp: a context computes with its own and no other's, and what it owns is freed in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from nbllm.core import Adapter, Row
from nbllm.errors import ModelLoadError
from nbllm.llama.adapter import LlamaAdapter
from nbllm.llama.backend import LlamaBackend
from tests import lora

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def backend(smollm2_path: Path) -> Iterator[LlamaBackend]:
    made = LlamaBackend(str(smollm2_path), threads=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def file(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(lora.for_model(tmp_path_factory.mktemp("lora") / "a.gguf", smollm2_path, names=["attn_q"], strength=0.5))


def _logits(backend: LlamaBackend, adapters: Sequence[Adapter]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    context = backend.make_context(kv_tokens=256, num_slots=1, unified=True, kv_type="f16", adapters=adapters)
    ids = backend.tokenize("The capital of France is", add_special=True, parse_special=False)
    context.decode([Row(token, place, 0, place == len(ids) - 1) for place, token in enumerate(ids)])
    found = context.logits(len(ids) - 1).copy()
    context.close()
    return found


def test_context_computes_with_its_adapters_and_the_next_one_without(backend: LlamaBackend, file: str) -> None:
    plain = _logits(backend, ())
    adapted = _logits(backend, [Adapter(file)])
    assert np.abs(adapted - plain).max() > 0.5
    assert np.array_equal(_logits(backend, ()), plain)
    assert np.array_equal(_logits(backend, [Adapter(file, 0.0)]), plain)
    assert np.array_equal(_logits(backend, [Adapter(file)]), adapted)


def test_two_halves_are_a_whole(backend: LlamaBackend, file: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(Path(file).read_bytes())
    halves = _logits(backend, [Adapter(file, 0.5), Adapter(str(copy), 0.5)])
    assert np.abs(halves - _logits(backend, [Adapter(file)])).max() < 0.05


def test_file_that_llama_cpp_refuses_is_quoted_and_nothing_is_left(backend: LlamaBackend, tmp_path: Path) -> None:
    unfit = lora.write(tmp_path / "unfit.gguf", [("blk.0.attn_q.weight.lora_a", (8, 1), [0.0] * 8)])
    before = _logits(backend, ())
    for path in (str(unfit), str(tmp_path / "none.gguf")):
        with pytest.raises(ModelLoadError, match=r"llama\.cpp cannot use this adapter"):
            _logits(backend, [Adapter(path)])
    assert np.array_equal(_logits(backend, ()), before)


def test_model_that_is_closed_first_frees_its_contexts_and_adapters_once(smollm2_path: Path, file: str) -> None:
    backend = LlamaBackend(str(smollm2_path), threads=1)
    context = backend.make_context(
        kv_tokens=256, num_slots=1, unified=True, kv_type="f16", adapters=[Adapter(file), Adapter(file, 0.5)]
    )
    alone = LlamaAdapter(backend, file)
    backend.close()
    for twice in (context, context, alone, alone, backend):
        twice.close()
