"""Writes small LoRA adapters, well-formed unless told otherwise."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from nbllm.store.tensors import model_tensors
from tests.store import gguf_writer as writer

F32, F16, Q8_0, I32 = 0, 1, 8, 26


def values(**changes: writer.Typed | None) -> dict[str, writer.Typed]:
    """An adapter's metadata; a change's name has __ for the dot, and None leaves a key out."""
    made: dict[str, writer.Typed] = {
        "general.type": writer.text("adapter"),
        "general.architecture": writer.text("llama"),
        "adapter.type": writer.text("lora"),
        "adapter.lora.alpha": writer.number(writer.F32, 4.0),
    }
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del made[key]
        else:
            made[key] = value
    return made


def write(
    path: Path,
    tensors: Sequence[tuple[str, tuple[int, ...], Sequence[float]]],
    metadata: Mapping[str, writer.Typed] | None = None,
    kind: int = F32,
) -> Path:
    """An adapter of tensors as (name, shape, numbers); of another type than F32 the bytes are zero."""
    table, data = [], bytearray()
    for name, shape, numbers in tensors:
        data += b"\0" * (-len(data) % 32)
        table.append(writer.Tensor(name, shape, kind, len(data)))
        size = {F32: 4, F16: 2, I32: 4}.get(kind)
        data += struct.pack(f"<{len(numbers)}f", *numbers) if kind == F32 else b"\0" * (size or 2) * len(numbers)
    head = writer.gguf(values() if metadata is None else metadata, table)
    data += b"\0" * (-len(data) % 32)
    return writer.write(path, head + b"\0" * (-len(head) % 32) + bytes(data))


def for_model(
    path: Path,
    model: Path,
    *,
    names: Sequence[str] = ("attn_q", "ffn_down"),
    rank: int = 4,
    strength: float = 0.1,
    seed: int = 0,
    alpha: float = 4.0,
) -> Path:
    """An adapter that fits the model and changes these matrices of each layer by noise."""
    noise = random.Random(seed)
    made = []
    for name, tensor in model_tensors(model).items():
        if any(f".{part}.weight" in name for part in names):
            columns, rows = tensor.shape[:2]
            first = [noise.gauss(0, 1 / columns**0.5) for _ in range(columns * rank)]
            second = [noise.gauss(0, strength) for _ in range(rank * rows)]
            made += [(f"{name}.lora_a", (columns, rank), first), (f"{name}.lora_b", (rank, rows), second)]
    return write(path, made, values(adapter__lora__alpha=writer.number(writer.F32, alpha)))
