"""Server-sent events: `data: ...` and an empty line, a comment (`:`) as a sign of life, `[DONE]` at the end."""

from __future__ import annotations

import re

from nbllm.errors import EngineError

DONE = b"data: [DONE]\n\n"
PING = b":\n\n"
_LINE_END = re.compile(rb"\r\n|\r|\n")


def event(data: bytes) -> bytes:
    """One event. `data` is JSON, so that it has no line ends: an encoder escapes them."""
    return b"data: %b\n\n" % data


class SseParser:
    """Takes a stream apart however it was cut, and whichever line ends it has.

    Args:
        limit: bytes of one event; a server that sends more is broken or hostile.
    """

    def __init__(self, limit: int = 16 * 2**20) -> None:
        self._limit = limit
        self._size = 0
        self._line: list[bytes] = []
        self._data: list[str] = []
        self._ends_in_cr = False
        self._is_start = True

    def push(self, piece: bytes) -> list[str]:
        """The data of each event that `piece` completes.

        Raises:
            EngineError: an event is larger than the limit.
        """
        if not piece:
            return []
        if self._ends_in_cr:
            piece = piece.removeprefix(b"\n")
            self._ends_in_cr = False
        *lines, rest = _LINE_END.split(piece)
        self._ends_in_cr = piece.endswith(b"\r")
        events = [data for line in lines if (data := self._take(self._whole(line))) is not None]
        if rest:
            self._keep(rest)
        return events

    def finish(self) -> list[str]:
        """What stands after the last empty line: a server that just closes has said it all the same."""
        last = self._take(self._whole(b""))
        rest = [last] if last is not None else []
        if self._data:
            rest.append(self._given_out())
        return rest

    def _keep(self, part: bytes) -> None:
        self._line.append(part)
        self._grow(len(part))

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise EngineError(f"the server sent an event of more than {self._limit:,} bytes")

    def _whole(self, end: bytes) -> str:
        self._grow(len(end))
        line = b"".join((*self._line, end)).decode("utf-8", errors="replace")
        self._line.clear()
        if self._is_start:
            self._is_start = False
            line = line.removeprefix("\ufeff")
        return line

    def _take(self, line: str) -> str | None:
        """Read one line; an empty one completes an event, if there is data."""
        if not line:
            self._size = 0
            return self._given_out() if self._data else None
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        else:  # a comment, an id, an event name: no part of the data
            self._size -= min(self._size, len(line.encode()))
        return None

    def _given_out(self) -> str:
        data = "\n".join(self._data)
        self._data.clear()
        self._size = 0
        return data
