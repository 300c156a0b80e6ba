"""The table of a GGUF's tensors, name by name: what a LoRA adapter has to be compared with its base by."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nbllm.errors import ModelLoadError
from nbllm.store.ggml import TENSOR_TYPES
from nbllm.store.header import (
    MAX_DIMENSIONS,
    MAX_KEY_BYTES,
    MAX_TENSOR_NAME_BYTES,
    GgufHeader,
    incompleteness,
    read_header,
    shown,
)
from nbllm.store.parts import model_files
from nbllm.store.reader import DamagedError, HeaderReader

_LAYOUTS = [struct.Struct(f"<{num}QIQ") for num in range(MAX_DIMENSIONS + 1)]  # dimensions, type, offset
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        shape: four numbers, 1 where the file names fewer; the first is a row's length.
        kind: ggml's number of its type.
        start: where its bytes begin in the file.
    """

    name: str
    shape: tuple[int, int, int, int]
    kind: int
    start: int

    @property
    def is_matrix(self) -> bool:
        return self.shape[1] > 1

    @property
    def num_bytes(self) -> int:
        """0 for a type that is not known."""
        known = TENSOR_TYPES.get(self.kind)
        return math.prod(self.shape) // known.block_size * known.block_bytes if known is not None else 0


@dataclass(frozen=True, slots=True)
class TensorTable:
    """A whole header.

    Attributes:
        kinds: GGUF's number of the type of each value, which `header.values` does not tell.
    """

    header: GgufHeader
    kinds: Mapping[str, int]
    tensors: tuple[Tensor, ...]


def read_tensors(path: str | os.PathLike[str]) -> TensorTable:
    """Read all that one GGUF file says of its values and tensors.

    Raises:
        ModelLoadError: it cannot be read, is no well-formed GGUF, or is too short for its tensors.
    """
    path = Path(path)
    try:
        header = read_header(path)
        problem = incompleteness(header)
        if problem:
            raise DamagedError(problem)
        with open(path, "rb") as file:
            return _table(header, HeaderReader(file, header.size_bytes, hop=False))
    except DamagedError as exc:
        raise ModelLoadError(f"{shown(path)}: {exc}") from exc
    except OSError as exc:
        raise ModelLoadError(f"{shown(path)}: cannot be read: {exc.strerror or exc}") from exc


def model_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a model, by name, of all parts of a split one. Raises ModelLoadError, as `read_tensors`."""
    tables = [read_tensors(part) for part in model_files(Path(path)).paths]
    return {tensor.name: tensor for table in tables for tensor in table.tensors}


def _table(header: GgufHeader, reader: HeaderReader) -> TensorTable:
    reader.skip(8)
    num_tensors, num_values = reader.u64(), reader.u64()
    kinds: dict[str, int] = {}
    for _ in range(num_values):
        key = reader.text(MAX_KEY_BYTES, "a key")
        if not key:
            raise DamagedError("is damaged: a key is empty")
        at = reader.position
        kinds[key] = reader.u32()
        reader.position = at
        reader.value(shown(key))
    infos = [_tensor(reader) for _ in range(num_tensors)]
    alignment = header.integer("general.alignment") or _ALIGNMENT
    start = -(-reader.position // alignment) * alignment
    tensors = tuple(Tensor(name, shape, kind, start + offset) for name, shape, kind, offset in infos)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise DamagedError("is damaged: two of its tensors have the same name")
    return TensorTable(header, kinds, tensors)


def _tensor(reader: HeaderReader) -> tuple[str, tuple[int, int, int, int], int, int]:
    name = reader.text(MAX_TENSOR_NAME_BYTES, "a tensor's name")
    num_dimensions = reader.u32()
    if num_dimensions > MAX_DIMENSIONS:
        raise DamagedError(f"is damaged: the tensor {shown(name)} has {num_dimensions:,} dimensions")
    layout = _LAYOUTS[num_dimensions]
    *dimensions, kind, offset = layout.unpack(reader.raw(layout.size))
    first, second, third, fourth = (*dimensions, 1, 1, 1, 1)[:MAX_DIMENSIONS]
    return name, (first, second, third, fourth), kind, offset
