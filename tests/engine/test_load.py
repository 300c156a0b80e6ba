"""Options are refused before anything is read or allocated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nbllm.config import Config
from nbllm.core import ModelInfo
from nbllm.engine.load import load_engine
from nbllm.errors import ModelLoadError, ParameterError

_NOWHERE = ModelInfo(name="none", path="/no/such/file.gguf", size_bytes=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"threads": 0}, "threads: must be a whole number from 1 to 512, not 0", id="no threads"),
        pytest.param({"gpu_layers": -2}, "gpu_layers: must be -1", id="negative layers"),
        pytest.param({"use_mmap": "no"}, "use_mmap: must be True or False, not 'no'", id="switch of text"),
        pytest.param({"max_batch": 32}, "max_batch: must be a whole number from 64 to 4096, not 32", id="small batch"),
        pytest.param({"flash_attention": "auto"}, "flash_attention: must be True, False or None", id="flash of text"),
        pytest.param(
            {"flash_attention": False, "kv_type": "q8_0"}, "a q8_0 KV needs it", id="quantized without flash attention"
        ),
    ],
)
def test_load_engine_refuses_an_option_before_it_reads_the_file(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        load_engine(_NOWHERE, Config(), **options)


def test_load_engine_says_what_is_wrong_with_the_file() -> None:
    with pytest.raises(ModelLoadError, match=r"file\.gguf: is a shard"):
        load_engine(replace(_NOWHERE, problem="is a shard"), Config())
