"""What is left of a model that was closed while others of the same file go on with its engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from nbllm.engine.interface import EngineStats
from nbllm.errors import EngineClosedError

if TYPE_CHECKING:
    from nbllm.core import EngineInfo, GenerateRequest, RenderedPrompt, Request
    from nbllm.engine.interface import OnChunk, Ticket


class ClosedEngine:
    """Implements `engine.interface.Engine` and answers nothing, as an engine does that was closed itself.

    Args:
        name: what to load to have one that answers.
    """

    def __init__(self, info: EngineInfo, name: str) -> None:
        self.info = info
        self._name = name

    def submit(self, request: Request, on_chunk: OnChunk) -> Ticket:
        self._refuse()

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        self._refuse()

    def detokenize(self, tokens: Sequence[int]) -> str:
        self._refuse()

    def render(self, request: GenerateRequest) -> RenderedPrompt:
        self._refuse()

    def stats(self) -> EngineStats:
        return EngineStats()

    def close(self) -> None:
        pass

    def _refuse(self) -> NoReturn:
        raise EngineClosedError(f"this model was closed; load it again: nbllm.load({self._name!r})")
