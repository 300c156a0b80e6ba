"""Bytes of a file on a server, by ranges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from nbllm.store.pulling.errors import CutError

TRY_AGAIN = (408, 500, 502, 503, 504)
"""What a server answers when it may do better a little later."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class Chunks:
    """Bytes of a file, from `first` on; a server that knows no ranges begins at 0 whatever was asked for."""

    first: int
    data: Iterator[bytes]


Opener = Callable[[int, int], AbstractContextManager[Chunks]]
"""Asks for the bytes from the first to the last of the two numbers. Raises CutError when it may be asked again, also
while the bytes are read inside the context."""


def first_byte(status: int, headers: Mapping[str, str]) -> int:
    """Where an answer begins in its file. Raises CutError when it does not say."""
    if status != 206:
        return 0
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None:
        raise CutError("an answer without its range")
    return int(match[1])
