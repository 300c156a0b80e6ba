"""What is worth trying, in groups: a group varies one thing of the best setting that the groups before have found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nbllm.core import ModelInfo
from nbllm.session.tuning.setting import Setting

_BITS = {
    "F32": 32.0,
    "F16": 16.0,
    "BF16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.6,
    "Q5_K_M": 5.7,
    "Q5_K_S": 5.5,
    "Q5_1": 6.0,
    "Q5_0": 5.5,
    "Q4_1": 5.0,
    "Q4_K_M": 4.9,
    "Q4_K_S": 4.6,
    "Q4_0": 4.5,
    "IQ4_NL": 4.5,
    "IQ4_XS": 4.3,
    "MXFP4_MOE": 4.3,
}
"""Of a weight, by the quantization that a file says it has."""
_FORMATS = ("Q8_0", "Q4_1", "Q4_0")
_SMALL_BYTES = 1 << 30
_BATCHES = (128, 512)

Group = Callable[[Setting], Sequence[Setting]]
"""Variations of the best setting so far."""


def formats(model: ModelInfo) -> list[str]:
    """The formats in which the weights may be faster.

    None of more bits than the file has, but for Q8_0 of a small file of four bits or more: what it then costs in memory
    is little, it loses next to nothing of the weights, and of all formats it takes the least arithmetic.
    """
    own = _BITS.get(model.quantization, 0.0)
    return [
        kind
        for kind in _FORMATS
        if kind != model.quantization
        and (_BITS[kind] < own or (kind == "Q8_0" and own >= _BITS["MXFP4_MOE"] and model.size_bytes < _SMALL_BYTES))
    ]


def expected_bytes(model: ModelInfo, kind: str) -> int:
    """About the size of the file in that format, rather too much than too little."""
    return int(model.size_bytes * 1.2 * max(1.0, _BITS[kind] / _BITS.get(model.quantization, _BITS[kind])))


def groups(cores: int, *, on_gpu: bool) -> list[Group]:
    """What is varied once the weights are chosen.

    Args:
        cores: that the process may use, which is what an engine takes of itself.
        on_gpu: where flash attention is on of itself.
    """
    counts = sorted({max(1, cores * 3 // 4), max(1, cores // 2)} - {cores}, reverse=True)
    return [
        lambda best: [replace(best, threads=count) for count in counts],
        lambda best: [replace(best, flash_attention=not on_gpu)],
        lambda best: [replace(best, kv_type="q8_0", flash_attention=None)],
        lambda best: [replace(best, max_batch=size) for size in _BATCHES],
    ]
