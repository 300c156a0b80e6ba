"""Writes small GGUF files, well-formed unless told otherwise."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_FORMATS = dict(zip((U8, I8, U16, I16, U32, I32, F32, BOOL, U64, I64, F64), "BbHhIif?Qqd", strict=True))


@dataclass(frozen=True)
class Typed:
    """A value as the file has it: the type's number and the bytes after it."""

    kind: int
    data: bytes


def number(kind: int, value: float, endian: str = "<") -> Typed:
    return Typed(kind, struct.pack(endian + _FORMATS[kind], value))


def u32(value: int) -> Typed:
    return number(U32, value)


def packed(data: bytes | str) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return struct.pack("<Q", len(raw)) + raw


def text(value: bytes | str) -> Typed:
    return Typed(STRING, packed(value))


def strings(values: Sequence[bytes | str]) -> Typed:
    return Typed(ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(packed, values)))


def numbers(kind: int, values: Sequence[float]) -> Typed:
    return Typed(ARRAY, struct.pack(f"<IQ{len(values)}{_FORMATS[kind]}", kind, len(values), *values))


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def gguf(
    values: Mapping[str, Typed] | Sequence[tuple[str, Typed]],
    tensors: Sequence[Tensor] = (),
    *,
    data_bytes: int = 0,
    version: int = 3,
    endian: str = "<",
    num_tensors: int | None = None,
    num_values: int | None = None,
    alignment: int = 32,
) -> bytes:
    pairs = list(values.items()) if isinstance(values, Mapping) else list(values)
    counts = (len(tensors) if num_tensors is None else num_tensors, len(pairs) if num_values is None else num_values)
    out = bytearray(b"GGUF" + struct.pack(endian + "IQQ", version, *counts))
    for key, value in pairs:
        out += packed(key) + struct.pack("<I", value.kind) + value.data
    for tensor in tensors:
        out += packed(tensor.name) + struct.pack("<I", len(tensor.shape))
        out += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.kind, tensor.offset)
    out += b"\0" * (-len(out) % alignment if data_bytes else 0)
    return bytes(out) + b"\0" * data_bytes


def llama_values(**changes: Typed | None) -> dict[str, Typed]:
    """The metadata of a tiny chat model; a change's name has __ for the dot, and None leaves a key out."""
    values = {
        "general.architecture": text("llama"),
        "general.size_label": text("1.5M"),
        "general.file_type": u32(15),
        "llama.block_count": u32(4),
        "llama.context_length": u32(2048),
        "llama.embedding_length": u32(64),
        "llama.attention.head_count": u32(8),
        "llama.attention.head_count_kv": u32(2),
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.tokens": strings([f"token{index}" for index in range(1500)]),
        "tokenizer.ggml.token_type": numbers(I32, [1] * 1500),
        "tokenizer.ggml.merges": strings([f"a b{index}" for index in range(1200)]),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.chat_template": text("{% for m in messages %}{{ m.content }}{% endfor %}"),
        "general.quantization_version": u32(2),
    }
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del values[key]
        else:
            values[key] = value
    return values


TENSORS = (Tensor("token_embd.weight", (64, 4), 0, 0), Tensor("blk.0.attn_q.weight", (64, 2), 8, 1024))
TENSOR_BYTES = 1024 + 4 * 34


def tiny_model(**changes: Typed | None) -> bytes:
    return gguf(llama_values(**changes), TENSORS, data_bytes=TENSOR_BYTES)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
