"""Large pages for a context's KV memory.

llama.cpp clears the whole KV memory when it makes a context. On pages of 4 KiB, most of that time is the kernel's,
handing out a page at a time: a quarter of a second for 360 MiB, and a tenth on pages of 2 MiB. Many systems give those
only to memory that is pointed out to them ("madvise"). llama.cpp does not do it, but it says how large the KV memory is
between allocating and clearing it; what is new in the process's memory map then, and as large, is it.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

_SIZE = re.compile(r"CPU KV buffer size = +(\d{1,8}\.\d\d) MiB")
_LEAST_BYTES = 32 << 20  # clearing less takes a moment on any pages
_MADV_HUGEPAGE = 14
_MAPS = Path("/proc/self/maps")
_POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_Range = tuple[int, int]


class KvAdvice:
    """Listens to llama.cpp's log while it makes one context, and advises the kernel about its KV memory.

    It only advises: where the kernel has no large pages, or the map cannot be read, all is as it would be without.
    """

    def __init__(self) -> None:
        self._before = _anonymous() if _is_wanted() else None

    def __call__(self, line: str) -> None:
        found = _SIZE.search(line) if self._before is not None else None
        size = int(float(found[1]) * 2**20) if found else 0
        if self._before is None or size < _LEAST_BYTES:
            return
        now = _anonymous() or []
        for start, stop in new_ranges(self._before, now):
            if stop - start >= size:
                _advise(start, stop)
        self._before = now


def new_ranges(before: list[_Range], now: list[_Range]) -> Iterator[_Range]:
    """The parts of `now` that are not in `before`; both are sorted and free of overlaps."""
    for start, stop in now:
        for low, high in before:
            if low < stop and start < high:
                if start < low:
                    yield start, low
                start = max(start, high)
        if start < stop:
            yield start, stop


def _is_wanted() -> bool:
    """Under "always" the pages are large anyway, and under "never" never."""
    try:
        return "[madvise]" in _POLICY.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def _anonymous() -> list[_Range] | None:
    """Private writable memory that is no file's, None if it is not told. The kernel joins neighbours into one range."""
    found = []
    try:
        text = _MAPS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        addresses, rights, _, _, inode, *name = line.split(maxsplit=5)
        start, _, stop = addresses.partition("-")
        if rights == "rw-p" and inode == "0" and not name:
            found.append((int(start, 16), int(stop, 16)))
    return found


def _advise(start: int, stop: int) -> None:
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    advise(start, stop - start, _MADV_HUGEPAGE)
