"""One way to run a model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """What differs from a plain `nbllm.load`; the default changes nothing.

    Attributes:
        weights: the format that the file is written in again, "" for the file as it is. The rest are options of
            `nbllm.load`, None where its default holds.
    """

    weights: str = ""
    threads: int | None = None
    max_batch: int | None = None
    flash_attention: bool | None = None
    kv_type: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """For `nbllm.load`."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name != "weights"}
        return {name: value for name, value in values.items() if value is not None}

    def label(self, quantization: str) -> str:
        """For a person.

        Args:
            quantization: of the file as it is.
        """
        weights = self.weights or (f"{quantization}, as it is" if quantization else "as it is")
        return ", ".join([weights, *(f"{name}={value}" for name, value in self.options.items())])
