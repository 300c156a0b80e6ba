"""LoRA adapters: small changes to a model's weights, in files of their own."""

from __future__ import annotations

from dataclasses import dataclass

from nbllm.core.numbers import Range
from nbllm.errors import ParameterError

SCALE = Range(float, -100.0, 100.0, "from -100 to 100, 1 is as it was trained and 0 is off")


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter and how much of it is added.

    Attributes:
        path: the file, absolute; in a preset as it is kept also "sha256:..." for a blob of the models folder.
        scale: 1 is as it was trained.
    """

    path: str
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path.strip() or "\0" in self.path:
            raise ParameterError("adapters", f"must be the path of a LoRA file, not {self.path!r:.100}")
        object.__setattr__(self, "scale", SCALE.checked("scale", self.scale))
