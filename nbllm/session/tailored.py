"""An engine whose requests all get a preset, whoever makes them: a surface cannot forget it, nor do it twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nbllm.core.presets import Preset, applied

if TYPE_CHECKING:
    from nbllm.core import EngineInfo, GenerateRequest, RenderedPrompt, Request
    from nbllm.engine.interface import Engine, EngineStats, OnChunk, Ticket


class TailoredEngine:
    """Implements `engine.interface.Engine` with that of the preset's base, which others may use as well.

    Args:
        base: what answers.
    """

    def __init__(self, base: Engine, preset: Preset) -> None:
        self._base, self._preset = base, preset

    @property
    def info(self) -> EngineInfo:
        """The base's, with the preset's name, and its parameters among the defaults."""
        info, preset = self._base.info, self._preset
        summary = info.summary if preset.name == info.model.name else f"{preset.name}, made of {info.summary}"
        return replace(
            info,
            model=replace(info.model, name=preset.name, source="preset"),
            defaults=preset.sampling.or_else(info.defaults),
            summary=summary,
        )

    def submit(self, request: Request, on_chunk: OnChunk) -> Ticket:
        return self._base.submit(applied(self._preset, request), on_chunk)

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        return self._base.tokenize(text, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._base.detokenize(tokens)

    def render(self, request: GenerateRequest) -> RenderedPrompt:
        return self._base.render(applied(self._preset, request))

    def stats(self) -> EngineStats:
        return self._base.stats()

    def close(self) -> None:
        self._base.close()
