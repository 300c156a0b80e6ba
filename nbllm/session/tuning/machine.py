"""Which machine this is, as far as it matters for speed: what was measured on another one says nothing here."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from nbllm.engine.machine import usable_cores


@dataclass(frozen=True, slots=True)
class Machine:
    """What a measurement depends on.

    Attributes:
        binding: llama-cpp-python's version.
    """

    cores: int
    processor: str
    binding: str

    def __str__(self) -> str:
        plural = "" if self.cores == 1 else "s"
        return f"{self.cores} core{plural}, {self.processor}, llama-cpp-python {self.binding}"

    @property
    def key(self) -> str:
        """Short, and different for different machines."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:8]


def this_machine() -> Machine:
    return Machine(usable_cores(), _processor(), _binding())


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    import platform

    return platform.processor() or platform.machine() or "unknown processor"


@functools.cache
def _binding() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return "none"
