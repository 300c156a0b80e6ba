"""The header of a GGUF: its metadata and the table of its tensors.

    "GGUF", u32 version, u64 number of tensors, u64 number of values
    values:   string key, u32 type, value
    tensors:  string name, u32 number of dimensions, u64 each, u32 type, u64 offset into the data
    data:     starts at the next multiple of general.alignment (32)

Versions 2 and 3, little endian: what llama.cpp loads.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nbllm.errors import ModelLoadError
from nbllm.store.ggml import TENSOR_TYPES, TensorType
from nbllm.store.reader import DamagedError, HeaderReader, Value

MAX_VALUES = 1 << 16
MAX_TENSORS = 1 << 18
MAX_KEY_BYTES = 65_535  # the format's own limit
MAX_TENSOR_NAME_BYTES = 1024
MAX_DIMENSIONS = 4
MAX_COUNT = 2**53  # what every JSON reader takes; a larger one is no count of anything
UNREADABLE = "cannot be read"
"""How the problem of a file begins that may be as well as any."""
_TENSOR_LAYOUTS = [struct.Struct(f"<{num}QIQ") for num in range(MAX_DIMENSIONS + 1)]  # what follows the u32
_UNKNOWN_TYPE = TensorType("", 1, 0)
_MAX_TENSOR_BYTES = 8 + MAX_TENSOR_NAME_BYTES + 4 + _TENSOR_LAYOUTS[-1].size
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MIN_VALUE_BYTES = 8 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8
_OTHER_FILES: Mapping[bytes, str] = {
    b"ggjt": "a GGML file from before GGUF; convert the model again",
    b"tjgg": "a GGML file from before GGUF; convert the model again",
    b"lmgg": "a GGML file from before GGUF; convert the model again",
    b"vers": "a Git LFS pointer, not the model itself; run `git lfs pull`",
    b"pk\3\4": "a zip or PyTorch file; convert the model to GGUF",
    b"<!do": "a web page, so the download failed",
    b"<htm": "a web page, so the download failed",
}


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the header of one GGUF file says.

    Attributes:
        values: scalars, strings and numeric arrays of up to 1,024 elements; other arrays are an `ArrayOf`.
        needed_bytes: the file's size according to the table of its tensors, 0 if that was not read.
    """

    path: Path
    size_bytes: int
    version: int
    tensor_count: int
    values: Mapping[str, Value]
    needed_bytes: int = 0

    def integer(self, key: str) -> int:
        """A count; 0 if the file has none under that key, or something that is not a count."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_COUNT else 0

    def text(self, key: str) -> str:
        value = self.values.get(key)
        return value if isinstance(value, str) else ""


def read_metadata(path: str | os.PathLike[str], *, wanted: Collection[str] | None = None) -> GgufHeader:
    """Read a GGUF's metadata, or only the `wanted` keys of it, which ends as soon as all of them are found.

    Raises:
        ModelLoadError: the file cannot be read or is not a well-formed GGUF of version 2 or 3.
    """
    try:
        return _read(Path(path), wanted, with_tensors=False)
    except DamagedError as exc:
        raise ModelLoadError(f"{shown(path)}: {exc}") from exc


def read_header(path: Path) -> GgufHeader:
    """The metadata and, in `needed_bytes`, what the table of the tensors comes to. Raises DamagedError."""
    return _read(path, None, with_tensors=True)


def incompleteness(header: GgufHeader) -> str:
    """What is missing at the file's end, "" if nothing is."""
    if header.needed_bytes <= header.size_bytes:
        return ""
    return f"truncated: has {header.size_bytes:,} bytes, needs {header.needed_bytes:,}"


def shown(path: object) -> str:
    """A path or a key for an error of one line: whatever does not print is escaped, and what is long is cut."""
    text = str(path)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 300 else f"{text[:140]}...{text[-140:]}"


def _read(path: Path, wanted: Collection[str] | None, *, with_tensors: bool) -> GgufHeader:
    """Read fast; if that hopped over a string array and then found anything wrong, walk every string instead."""
    with _opened(path) as (file, size):
        reader = HeaderReader(file, size, hop=True)
        try:
            header = _parsed(path, reader, wanted, with_tensors=with_tensors)
            if not incompleteness(header) or not reader.has_hopped:
                return header
        except DamagedError:
            if not reader.has_hopped:
                raise
        return _parsed(path, HeaderReader(file, size, hop=False), wanted, with_tensors=with_tensors)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    try:
        with _open(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DamagedError("is not a file")
            yield file, status.st_size
    except OSError as exc:
        raise DamagedError(f"{UNREADABLE}: {exc.strerror or exc}") from exc


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb", opener=_open_without_waiting)
    except ValueError as exc:  # a NUL or a lone surrogate in the path
        raise DamagedError("is not a path") from exc


def _open_without_waiting(path: str, flags: int) -> int:
    """A FIFO would wait for its writer, for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _parsed(path: Path, reader: HeaderReader, wanted: Collection[str] | None, *, with_tensors: bool) -> GgufHeader:
    version = _version(reader)
    num_tensors = _count(reader, "tensors", MAX_TENSORS, _MIN_TENSOR_BYTES)
    num_values = _count(reader, "values", MAX_VALUES, _MIN_VALUE_BYTES)
    values = _values(reader, num_values, wanted)
    needed = _needed_bytes(reader, num_tensors, values) if with_tensors else 0
    return GgufHeader(path, reader.size, version, num_tensors, values, needed)


def _version(reader: HeaderReader) -> int:
    if not reader.size:
        raise DamagedError("is empty")
    magic = reader.raw(min(4, reader.size))
    if magic != b"GGUF":
        raise DamagedError(f"is not a GGUF but {_OTHER_FILES.get(magic.lower(), 'something else')}")
    version = reader.u32()
    if version in (2, 3):
        return version
    if version == 1:
        raise DamagedError("is a GGUF of version 1, which llama.cpp no longer loads; convert the model again")
    if version & 0xFFFF == 0:
        raise DamagedError("is a big-endian GGUF; convert the model again as little endian")
    raise DamagedError(f"is a GGUF of version {version}; versions 2 and 3 can be read")


def _count(reader: HeaderReader, what: str, most: int, least_bytes: int) -> int:
    count = reader.u64()
    if count > most or count * least_bytes > reader.size:
        raise DamagedError(f"is damaged or truncated: {count:,} {what} in {reader.size:,} bytes")
    return count


def _values(reader: HeaderReader, count: int, wanted: Collection[str] | None) -> dict[str, Value]:
    values: dict[str, Value] = {}
    missing = None if wanted is None else set(wanted)
    if missing is not None and not missing:
        return values
    for key, value in _pairs(reader, count):
        if key in values:
            raise DamagedError(f"is damaged: {shown(key)} is there twice")
        if missing is None or key in missing:
            values[key] = value
        if missing is not None:
            missing.discard(key)
            if not missing:
                break
    return values


def _pairs(reader: HeaderReader, count: int) -> Iterator[tuple[str, Value]]:
    while count:
        plain = reader.plain_values(count, MAX_KEY_BYTES)
        yield from plain
        count -= len(plain)
        if not plain:
            key = reader.text(MAX_KEY_BYTES, "a key")
            yield key, reader.value(shown(key))
            count -= 1


def _needed_bytes(reader: HeaderReader, num_tensors: int, values: Mapping[str, Value]) -> int:
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise DamagedError(f"is damaged: general.alignment is {shown(alignment)}, not a power of two")
    data_end, left = 0, num_tensors
    while left:
        count, end = _last_end(reader, left)
        if not count:
            count, end = 1, _tensor_end(reader)
        left, data_end = left - count, max(data_end, end)
    data_start = -(-reader.position // alignment) * alignment
    return data_start + data_end if num_tensors else reader.position


def _last_end(reader: HeaderReader, most: int) -> tuple[int, int]:
    """How many of the next tensors lie whole in the reader's window, and where in the data the last of those ends.

    The last is the one that starts last: llama.cpp takes no file whose tensors overlap. Stops early, perhaps before the
    first, where the window ends and where `_tensor_end` has something to refuse; five times as fast as that.
    """
    window, start = reader.buffered()
    last, at = len(window) - _MAX_TENSOR_BYTES, start
    u64_at, u32_at = _U64.unpack_from, _U32.unpack_from
    count, greatest, place = 0, -1, 0
    while count < most and 0 <= at <= last:
        name_bytes = u64_at(window, at)[0]
        if name_bytes > MAX_TENSOR_NAME_BYTES:
            break
        behind_name = at + 8 + name_bytes
        num_dimensions = u32_at(window, behind_name)[0]
        if num_dimensions > MAX_DIMENSIONS:
            break
        count += 1
        at = behind_name + 16 + 8 * num_dimensions
        offset = u64_at(window, at - 8)[0]
        if offset >= greatest:
            greatest, place = offset, behind_name
    reader.skip(at - start)
    return count, _end(window, place) if count else 0


def _tensor_end(reader: HeaderReader) -> int:
    """Where in the data the next tensor of the table ends; where it starts if its type is not known."""
    name = reader.raw_text(MAX_TENSOR_NAME_BYTES, "a tensor's name")
    num_dimensions = reader.u32()
    if num_dimensions > MAX_DIMENSIONS:
        what = shown(name.decode("utf-8", errors="replace"))
        raise DamagedError(f"is damaged: the tensor {what} has {num_dimensions:,} dimensions")
    return _end(_U32.pack(num_dimensions) + reader.raw(_TENSOR_LAYOUTS[num_dimensions].size), 0)


def _end(data: bytes, at: int) -> int:
    """Args: at: where what follows the tensor's name begins."""
    (num_dimensions,) = _U32.unpack_from(data, at)
    *dimensions, kind, offset = _TENSOR_LAYOUTS[num_dimensions].unpack_from(data, at + 4)
    _, block_size, block_bytes = TENSOR_TYPES.get(kind, _UNKNOWN_TYPE)
    return int(offset + math.prod(dimensions) // block_size * block_bytes)
