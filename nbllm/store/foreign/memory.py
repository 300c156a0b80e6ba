"""How much memory a model on this machine may have at most, which is not what is free just now: a name that leaves the
quantization open must mean the same file tomorrow."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")
_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
"""A container's own, in the versions of cgroups."""


def total_memory(root: Path = _ROOT) -> int:
    """Bytes of this machine, or of this container if it may have fewer."""
    limits = [_physical()]
    for name in _LIMITS:
        with suppress(OSError, ValueError):  # ValueError: "max"
            limits.append(int((root / name).read_text(encoding="ascii")))
    return min(limits)


def _physical() -> int:
    with suppress(AttributeError, OSError, ValueError):  # Windows
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.virtual_memory().total)
