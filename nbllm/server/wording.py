"""What clients are told of an engine's errors: they load no models themselves, and need not know where files lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nbllm.errors import ContextOverflowError, ModelError
from nbllm.server.naming import without_folder

if TYPE_CHECKING:
    from nbllm.server.naming import Target


class ServedOverflowError(ContextOverflowError):
    """A prompt does not fit into the context that the server gives the model."""

    @staticmethod
    def _longer_context(length: int, trained_length: int) -> str:
        """For an operator, who may not know beyond what length a model of unknown training talks nonsense."""
        return f", or have the server started with --context-length {length}" if length and trained_length else ""


@contextmanager
def for_clients(target: Target) -> Iterator[None]:
    """What is raised inside is raised again in words for clients."""
    try:
        yield
    except ContextOverflowError as exc:
        counts = exc.prompt_tokens, exc.context_length
        raise ServedOverflowError(*counts, trained_length=target.context_length) from exc
    except ModelError as exc:
        for path in (target.file, target.path):
            if path is not None:
                exc.args = tuple(without_folder(each, path) if isinstance(each, str) else each for each in exc.args)
        raise
