"""The measurements as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nbllm.core.sizes import size_text
from nbllm.session.tuning.measurement import Measurement
from nbllm.session.tuning.setting import Setting

SPEEDS = ("prefill", "decode", "decode_8")
"""The names of the speeds."""
_HEAD = ("SETTING", "PREFILL", "DECODE", "8 x DECODE", "KL", "SIZE", "")
_NUM_TEXTS = 1
"""Columns that are set to the left."""


@dataclass(frozen=True, slots=True)
class Table:
    """Speed against quality.

    Attributes:
        chosen: None while nothing is.
        quantization: of the file as it is.
    """

    measured: Sequence[Measurement]
    chosen: Setting | None
    quantization: str

    def text(self) -> str:
        """Columns of text; speeds are in tokens a second."""
        rows = [_HEAD, *(self._row(one) for one in self.measured)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
        lines = []
        for *cells, last in rows:
            aligned = [
                cell.ljust(width) if column < _NUM_TEXTS else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            lines.append("  ".join([*aligned, last]).rstrip())
        return "\n".join(lines)

    def _row(self, one: Measurement) -> tuple[str, ...]:
        label = one.setting.label(self.quantization)
        if one.problem or not one.runs:
            return label, "-", "-", "-", "-", "-", one.problem
        speeds = [f"{getattr(one.speeds, name):.0f}" for name in SPEEDS]
        kl = "-" if one.divergence is None else f"{one.divergence:.4f}"
        return label, *speeds, kl, size_text(one.size_bytes), "chosen" if one.setting == self.chosen else ""
