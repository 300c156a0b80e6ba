"""Where a tuning measures: processes of this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nbllm.core import ModelInfo
from nbllm.core.sizes import size_text
from nbllm.engine.machine import busy_elsewhere
from nbllm.errors import InsufficientMemoryError
from nbllm.session.tuning import process, speed
from nbllm.session.tuning.candidates import expected_bytes
from nbllm.session.tuning.measurement import Speeds

if TYPE_CHECKING:
    from nbllm.config import Config

_LOOKS, _LOOK_S = 5, 0.05

Progress = Callable[[int, int], None]


class Lab(Protocol):
    """What a tuner needs done. Each method raises an NbllmError when it cannot be."""

    @property
    def on_gpu(self) -> bool: ...
    @property
    def num_busy(self) -> int: ...
    def made(self, kind: str, target: Path, on_progress: Progress) -> None:
        """Write the model's weights in the format."""

    def speeds(self, path: Path, options: dict[str, Any]) -> Speeds: ...
    def divergence(self, path: Path, kv_type: str) -> float: ...


@dataclass(slots=True)
class ProcessLab:
    """Does each thing in a process of its own.

    Attributes:
        on_gpu: whether the last model that was measured had layers on a GPU.
        num_busy: how many times other programs were computing when the speed was to be measured.
    """

    model: ModelInfo
    config: Config
    cores: int
    on_gpu: bool = False
    num_busy: int = 0

    def made(self, kind: str, target: Path, on_progress: Progress) -> None:
        """Whole or not at all.

        Raises:
            InsufficientMemoryError: there is no room on the disk.
        """
        free, needed = shutil.disk_usage(target.parent).free, expected_bytes(self.model, kind)
        if needed > free:
            raise InsufficientMemoryError(f"the disk has {size_text(free)} free, and {size_text(needed)} are needed")
        unfinished = target.with_name(f"{target.name}.part")
        try:
            process.run(
                "quantize",
                on_progress,
                source=self.model.path,
                target=str(unfinished),
                kind=kind,
                threads=self.cores,
            )
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)

    def speeds(self, path: Path, options: dict[str, Any]) -> Speeds:
        self.num_busy += _is_busy()
        found, self.on_gpu = speed.in_a_process(path, self.model.name, options, self.config.load_timeout)
        return found

    def divergence(self, path: Path, kv_type: str) -> float:
        return float(
            process.run("diverge", original=self.model.path, other=str(path), kv_type=kv_type, threads=self.cores)
        )


def _is_busy() -> bool:
    """Whether something else computes at most of a few moments."""
    num_busy = 0
    for _ in range(_LOOKS):
        num_busy += busy_elsewhere() > 0
        time.sleep(_LOOK_S)
    return num_busy > _LOOKS // 2
