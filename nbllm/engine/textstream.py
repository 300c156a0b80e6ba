"""From token bytes to text: characters joined across tokens, and stop texts found across pieces."""

from __future__ import annotations

import codecs
from collections.abc import Iterable


class Utf8Stream:
    """Decodes bytes in any pieces. A character appears once it is whole; what is no UTF-8 becomes U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What is left: half a character at the end becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


class StopStream:
    """Passes text on until one of the stop texts appears, whatever pieces it arrives in.

    Text that may turn out to be the beginning of a stop text is held back. The stop that is complete first ends the
    text: what stands before it is passed on, the stop itself and all after it never.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, text: str) -> str:
        if self.stopped_by is not None:
            return ""
        self._held += text
        if not self._stops:
            return self._release(len(self._held))
        found = [(index, stop) for stop in self._stops if (index := self._held.find(stop)) >= 0]
        if found:
            index, self.stopped_by = min(found, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            safe = self._release(index)
            self._held = ""
            return safe
        return self._release(len(self._held) - self._num_suspect())

    def finish(self) -> str:
        """What was held back in vain."""
        return self._release(len(self._held))

    def _release(self, count: int) -> str:
        safe, self._held = self._held[:count], self._held[count:]
        return safe

    def _num_suspect(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = max(len(stop) for stop in self._stops) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-count:]
            if any(stop.startswith(tail) for stop in self._stops):
                return count
        return 0
