"""How much memory a model on this machine may have at most, which is not what is free just now: a name that leaves the
quantization open must mean the same file tomorrow."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nbllm.config.cgroups import memory_limits

_ROOT = Path("/")


def total_memory(root: Path = _ROOT) -> int:
    """Bytes of this machine, or of the smallest cgroup that this process is in if that may have fewer."""
    return min([_physical(), *(limit.num_bytes for limit in memory_limits(root))])


def _physical() -> int:
    with suppress(AttributeError, OSError, ValueError):  # Windows
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.virtual_memory().total)
