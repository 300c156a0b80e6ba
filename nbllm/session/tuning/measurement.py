"""What was measured of one setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nbllm.session.tuning.setting import Setting


@dataclass(frozen=True, slots=True)
class Speeds:
    """Tokens a second.

    Attributes:
        prefill: of a prompt of 512 tokens.
        decode: of one answer.
        decode_8: of eight answers side by side, all together.
    """

    prefill: float
    decode: float
    decode_8: float


def medians(runs: Sequence[Speeds]) -> Speeds:
    """Of each speed on its own."""
    import statistics  # slow, and reading a record needs none of it

    return Speeds(
        statistics.median(run.prefill for run in runs),
        statistics.median(run.decode for run in runs),
        statistics.median(run.decode_8 for run in runs),
    )


@dataclass(frozen=True, slots=True)
class Measurement:
    """A setting, and how fast and how faithful it is.

    Attributes:
        runs: one a process that it was measured in.
        divergence: mean Kullback-Leibler divergence of the model as it is from it, in nats a token; None if it was
            not computed.
        size_bytes: of the weights.
        problem: why there is nothing to tell, "" if there is.
    """

    setting: Setting
    runs: tuple[Speeds, ...] = ()
    divergence: float | None = None
    size_bytes: int = 0
    problem: str = ""

    @property
    def speeds(self) -> Speeds:
        """The medians of the runs, of which there has to be one."""
        return medians(self.runs)

    def is_allowed(self, max_divergence: float) -> bool:
        """Whether it may be chosen."""
        return (
            bool(self.runs) and not self.problem and self.divergence is not None and self.divergence <= max_divergence
        )

    def with_run(self, run: Speeds) -> Measurement:
        return replace(self, runs=(*self.runs, run))
