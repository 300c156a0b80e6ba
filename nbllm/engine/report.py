"""What a lane did: in one step, and since it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class StepReport(NamedTuple):
    """What a step was: sequences that decoded and prompt tokens beside them, and how long it took."""

    shape: tuple[int, int]
    duration_s: float

    @property
    def is_decode(self) -> bool:
        return self.shape[1] == 0


@dataclass(slots=True)
class Counters:
    """What a lane has done since it was made."""

    num_steps: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
