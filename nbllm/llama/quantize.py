"""Weights in another format, by llama.cpp's own quantizer.

It computes for seconds or minutes, nothing stops it, and a file that it does not like may end the process: call it in
one that nobody needs.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from nbllm.errors import ModelLoadError
from nbllm.llama import log
from nbllm.llama.library import library

FORMATS: Mapping[str, str] = {
    "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
    "Q4_1": "LLAMA_FTYPE_MOSTLY_Q4_1",
    "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
}
"""What `quantize` can make, and llama.cpp's names for it."""
_TENSOR = re.compile(r"\[\s*(\d{1,6})/\s*(\d{1,6})\]")

Progress = Callable[[int, int], None]


def quantize(source: Path, target: Path, kind: str, *, threads: int, on_progress: Progress | None = None) -> None:
    """Write a model again with its large tensors in the format `kind`, whatever they were before.

    A split model becomes one file.

    Args:
        on_progress: called with the numbers of tensors that are begun and that there are.

    Raises:
        ModelLoadError: llama.cpp refused; its own words are quoted. Something may have been written.
    """
    api = library().api
    params = api.llama_model_quantize_default_params()
    params.ftype = getattr(api, FORMATS[kind])
    params.nthread, params.allow_requantize = threads, True
    with log.captured(_listener(on_progress)) as errors:
        status = api.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if status:
        reason = errors[0].split(": ", 1)[-1].strip() if errors else "llama.cpp gave no reason"
        raise ModelLoadError(f"{source} cannot be written as {kind}: {reason}")


def _listener(on_progress: Progress | None) -> Callable[[str], None] | None:
    if on_progress is None:
        return None

    def hear(line: str) -> None:
        found = _TENSOR.match(line)
        if found is not None:
            on_progress(int(found[1]), int(found[2]))

    return hear
