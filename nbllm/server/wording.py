"""What clients are told of an engine's errors: they load no models themselves, and need not know where files lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nbllm.errors import ContextOverflowError, ModelError
from nbllm.server.naming import without_folder

if TYPE_CHECKING:
    from nbllm.server.naming import Target

_ROOM_FOR_AN_ANSWER = 512


class ServedOverflowError(ContextOverflowError):
    """A prompt does not fit into the context that the server gives the model."""

    def __init__(self, prompt_tokens: int, context_length: int, advice: str = "", trained_length: int = 0) -> None:
        super().__init__(prompt_tokens, context_length, advice, trained_length)
        self.args = (
            f"the prompt has {prompt_tokens:,} tokens and the context holds {context_length:,}: shorten the prompt"
            + self._longer(),
        )

    def _longer(self) -> str:
        enough = -(-(self.prompt_tokens + _ROOM_FOR_AN_ANSWER) // 256) * 256
        length = min(enough, self.trained_length)
        if length <= max(self.context_length, self.prompt_tokens):
            return ""
        return f", or have the server started with --context-length {length}"


@contextmanager
def for_clients(target: Target) -> Iterator[None]:
    """What is raised inside is raised again in words for clients."""
    try:
        yield
    except ContextOverflowError as exc:
        counts = exc.prompt_tokens, exc.context_length
        raise ServedOverflowError(*counts, trained_length=target.context_length) from exc
    except ModelError as exc:
        if target.path is not None:
            path = target.path
            exc.args = tuple(without_folder(each, path) if isinstance(each, str) else each for each in exc.args)
        raise
