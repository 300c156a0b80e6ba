"""What one step evaluates, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StepStatus(Enum):
    """How evaluating a batch ended: done, no room in the KV memory, or aborted."""

    OK = 0
    FULL = 1
    ABORTED = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One token to evaluate: where it stands in which slot's sequence, and whether its output is wanted."""

    token: int
    position: int
    slot: int
    output: bool
