"""Reads the primitives of a GGUF header from a file that may be hostile.

Every number is little endian. A string is a u64 length and that many bytes of UTF-8; an array is a u32 type, a u64
count and the elements; a value is what its u32 type says.

The file is read in windows, not mapped: when another process truncates a mapped file, touching it kills this one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

WINDOW_BYTES = 1 << 16
MAX_HEADER_BYTES = 1 << 28  # the largest vocabularies make headers of about 2**24
MAX_STRING_BYTES = 1 << 24
MAX_KEPT_BYTES = 1 << 25  # of all strings and numbers together
MAX_STRINGS = 1 << 22  # in all arrays together; walking one costs about 0.2 us
MAX_KEPT_ELEMENTS = 1024  # of a numeric array: enough for one number a layer
HOP_FROM_STRINGS = 1024
HOP_BYTES_PER_STRING = 64

STRING_TYPE, ARRAY_TYPE, BOOL_TYPE = 8, 9, 7
_NUMBER_BYTES = 40  # of a Python number and its place in a tuple
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_SCALARS: Mapping[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    BOOL_TYPE: struct.Struct("<?"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
# After a long string array nearly always comes another key of the tokenizer. Its length is below 256, so that the
# last seven bytes of the length are zero.
_NEXT_KEY = b"\0" * 7 + b"tokenizer."
_KEY = re.compile(rb"tokenizer\.[a-z0-9_.]+")
_MAX_TOKENIZER_KEY_BYTES = 255
_BEGINNING_BYTES = 512
_MAX_SPANS = 256
_spans: dict[tuple[int, bytes], int] = {}
"""How long string arrays were, by their lengths and beginnings: of ten files, eight share their tokenizers. It is only
where to look first, and threads need no lock for that."""


class DamagedError(Exception):
    """The file is not a well-formed GGUF; the text says why and leaves out which file."""


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """An array that was skipped: the GGUF number of its element type, and how many there are."""

    element_type: int
    length: int


Number = int | float | bool
Value = Number | str | tuple[Number, ...] | ArrayOf


class HeaderReader:
    """A position in a GGUF header that moves forward as values are taken.

    Args:
        hop: pass over long string arrays by searching for the next key, which is 20 times as fast as walking them and
            right for every file that is not made to mislead; `has_hopped` tells whether it came to that.
    """

    def __init__(self, file: BinaryIO, size: int, *, hop: bool) -> None:
        self.size = size
        self.position = 0
        self.has_hopped = False
        self._file = file
        self._hop = hop
        self._window = b""
        self._window_start = 0
        self._kept_bytes = 0
        self._num_strings = 0

    def u32(self) -> int:
        at = self._locate(4)
        self.position += 4
        return int(_U32.unpack_from(self._window, at)[0])

    def u64(self) -> int:
        at = self._locate(8)
        self.position += 8
        return int(_U64.unpack_from(self._window, at)[0])

    def raw(self, length: int) -> bytes:
        at = self._locate(length)
        self.position += length
        return self._window[at : at + length]

    def buffered(self) -> tuple[bytes, int]:
        """The bytes that are read already, and where in them the position is."""
        return self._window, min(self.position - self._window_start, len(self._window))

    def text(self, limit: int, what: str) -> str:
        """A string, with what is not UTF-8 in it replaced."""
        return self.raw_text(limit, what).decode("utf-8", errors="replace")

    def raw_text(self, limit: int, what: str) -> bytes:
        length = self.u64()
        if length > limit:
            raise DamagedError(f"is damaged: {what} is said to have {length:,} bytes")
        self._keep(length)
        return self.raw(length)

    def value(self, key: str) -> Value:
        kind = self.u32()
        if kind == STRING_TYPE:
            return self.text(MAX_STRING_BYTES, f"the value of {key}")
        if kind == ARRAY_TYPE:
            return self._array(key)
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise DamagedError(f"is damaged: the value of {key} has the unknown type {kind}")
        self._keep(_NUMBER_BYTES)
        at = self._locate(scalar.size)
        self.position += scalar.size
        number: Number = scalar.unpack_from(self._window, at)[0]
        return number

    def plain_values(self, most: int, max_key_bytes: int) -> list[tuple[str, Value]]:
        """The next keys whose values are no arrays, with the values: many times as fast as one by one.

        Ends early, perhaps before the first, where the window does, and before what `text` and `value` have to refuse.
        """
        found: list[tuple[str, Value]] = []
        window, at = self.buffered()
        start, end, room = at, len(window), MAX_KEPT_BYTES - self._kept_bytes
        u64_at, u32_at = _U64.unpack_from, _U32.unpack_from
        while len(found) < most and 0 <= at <= end - 8:
            key_at, key_end = at + 8, at + 8 + u64_at(window, at)[0]
            if key_end > min(key_at + max_key_bytes, end - 12):
                break
            kind, value_at = u32_at(window, key_end)[0], key_end + 4
            scalar = _SCALARS.get(kind)
            value: Value
            if scalar is not None:
                value, at = scalar.unpack_from(window, value_at)[0], value_at + scalar.size
                room -= key_end - key_at + _NUMBER_BYTES
            elif kind == STRING_TYPE and value_at + 8 + u64_at(window, value_at)[0] <= end:
                at = value_at + 8 + u64_at(window, value_at)[0]
                value = window[value_at + 8 : at].decode("utf-8", errors="replace")
                room -= key_end - key_at + at - value_at - 8
            else:
                break
            if room < 0:
                self._keep(MAX_KEPT_BYTES + 1)
            found.append((window[key_at:key_end].decode("utf-8", errors="replace"), value))
        self._kept_bytes = MAX_KEPT_BYTES - room
        self.skip(at - start)
        return found

    def _keep(self, length: int) -> None:
        self._kept_bytes += length
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise DamagedError(f"its header has more than {MAX_KEPT_BYTES:,} bytes of names and values")

    def _array(self, key: str) -> Value:
        kind, count = self.u32(), self.u64()
        if kind == STRING_TYPE:
            self._skip_strings(key, count)
        elif kind in _SCALARS and count > MAX_KEPT_ELEMENTS:
            self.skip(count * _SCALARS[kind].size)
        else:
            return self._numbers(key, kind, count)
        return ArrayOf(kind, count)

    def _numbers(self, key: str, kind: int, count: int) -> tuple[Number, ...]:
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise DamagedError(f"is damaged: the value of {key} has the unknown type {kind}")
        self._keep(count * _NUMBER_BYTES)
        return tuple(number for (number,) in scalar.iter_unpack(self.raw(count * scalar.size)))

    def _skip_strings(self, key: str, count: int) -> None:
        if count * 8 > self.size - self.position:
            raise self._truncated()
        if self._hop and count > HOP_FROM_STRINGS and self._hop_strings(count):
            return
        self._num_strings += count
        if self._num_strings > MAX_STRINGS:
            raise DamagedError(f"its arrays have more than {MAX_STRINGS:,} strings (at {key})")
        self._walk_strings(count)

    def _walk_strings(self, count: int) -> None:
        length_at = _U64.unpack_from
        while count:
            at = self._locate(8)
            window, last = self._window, len(self._window) - 8
            while count and at <= last:
                at += 8 + length_at(window, at)[0]
                count -= 1
            self.skip(self._window_start + at - self.position)

    def _hop_strings(self, count: int) -> bool:
        """Move to the next key of the tokenizer if there is one where it should be, else stay."""
        here = self.position
        beginning = self.raw(min(_BEGINNING_BYTES, self.size - here))
        known = _spans.get((count, beginning))
        if known is not None and self._hop_to(here + known):
            return True
        start = here + 8 * count
        found = self._find(_NEXT_KEY, start, start + HOP_BYTES_PER_STRING * count)
        if found is None or not self._hop_to(found - 1):
            self.position = here
            return False
        if len(_spans) < _MAX_SPANS:
            _spans[count, beginning] = self.position - here
        return True

    def _hop_to(self, position: int) -> bool:
        """Whether there is a key; if so, the position is there."""
        self.position = position
        has_key = position + 8 <= min(self.size, MAX_HEADER_BYTES) and self._is_at_key()
        self.position, self.has_hopped = position, self.has_hopped or has_key
        return has_key

    def _is_at_key(self) -> bool:
        length = self.u64()
        if length > _MAX_TOKENIZER_KEY_BYTES or self.size - self.position < length + 4:
            return False
        known = (STRING_TYPE, ARRAY_TYPE, *_SCALARS)
        return _KEY.fullmatch(self.raw(length)) is not None and self.u32() in known

    def _find(self, needle: bytes, start: int, end: int) -> int | None:
        end = min(end, self.size, MAX_HEADER_BYTES)
        while start + len(needle) <= end:
            window = self._read_at(start, WINDOW_BYTES)
            index = window.find(needle)
            if index >= 0:
                return start + index
            if len(window) < len(needle):
                return None
            start += len(window) - len(needle) + 1
        return None

    def skip(self, length: int) -> None:
        self.position += length
        if self.position > self.size:
            raise self._truncated()

    def _locate(self, length: int) -> int:
        """Where in the window the next `length` bytes start, after reading a new one if they are not in it."""
        at = self.position - self._window_start
        if at >= 0 and at + length <= len(self._window):
            return at
        end = self.position + length
        if end > self.size:
            raise self._truncated()
        if end > MAX_HEADER_BYTES:
            raise DamagedError(f"its header has more than {MAX_HEADER_BYTES:,} bytes")
        self._window = self._read_at(self.position, max(length, WINDOW_BYTES))
        self._window_start = self.position
        if len(self._window) < length:
            raise self._truncated()
        return 0

    def _read_at(self, position: int, length: int) -> bytes:
        self._file.seek(position)
        return self._file.read(length)

    def _truncated(self) -> DamagedError:
        return DamagedError(f"truncated: it ends after {self.size:,} bytes, inside its header")
