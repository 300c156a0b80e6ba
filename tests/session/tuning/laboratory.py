"""A lab without processes: speeds and divergences by a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbllm.core import ModelInfo
from nbllm.errors import EngineError
from nbllm.session.tuning.measurement import Speeds

Q4_1 = ModelInfo(name="toy", path="/nowhere/toy.gguf", size_bytes=100, quantization="Q4_1")


@dataclass
class ScriptedLab:
    """Attributes:
    decode_8: of a file's format, "" for the file as it is; what is missing cannot be measured.
    faster: by which factor an option changes that.
    divergences: by format.
    asked: what was done, in order.
    interrupt_at: the number of the measurement that a person interrupts.
    """

    decode_8: Mapping[str, float]
    faster: Mapping[str, float] = field(default_factory=dict)
    divergences: Mapping[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    interrupt_at: int = 0
    on_gpu: bool = False
    num_busy: int = 0

    def made(self, kind: str, target: Path, on_progress: Callable[[int, int], None]) -> None:
        self.asked.append(f"make {kind}")
        on_progress(1, 2)
        target.write_bytes(kind.encode())

    def speeds(self, path: Path, options: dict[str, Any]) -> Speeds:
        kind = _kind(path)
        self.asked.append(" ".join(["run", kind or "plain", *(f"{name}={it}" for name, it in options.items())]))
        if self.interrupt_at and sum(one.startswith("run") for one in self.asked) == self.interrupt_at:
            raise KeyboardInterrupt
        if kind not in self.decode_8:
            raise EngineError("its process was ended by SIGKILL")
        speed = self.decode_8[kind]
        for name in options:
            speed *= self.faster.get(name, 1.0)
        return Speeds(prefill=2 * speed, decode=speed / 2, decode_8=speed)

    def divergence(self, path: Path, kv_type: str) -> float:
        self.asked.append(f"compare {_kind(path) or 'plain'} {kv_type}")
        return self.divergences.get(_kind(path), 0.0) + (0.001 if kv_type != "f16" else 0.0)


def _kind(path: Path) -> str:
    return path.stem.partition("-")[2]
