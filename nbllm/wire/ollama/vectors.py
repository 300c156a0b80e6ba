"""What `/api/embed` and the older `/api/embeddings` answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbllm.wire.ollama.answers import nanoseconds
from nbllm.wire.openai.embeddings import cut

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def embed_body(
    model: str,
    vectors: Sequence[ArrayLike],
    prompt_tokens: int,
    *,
    dimensions: int | None,
    total_s: float,
    load_s: float,
) -> dict[str, Any]:
    """Unit vectors. Raises ParameterError when they have fewer than `dimensions` numbers."""
    return {
        "model": model,
        "embeddings": [cut(vector, dimensions).tolist() for vector in vectors],
        "total_duration": nanoseconds(total_s),
        "load_duration": nanoseconds(load_s),
        "prompt_eval_count": prompt_tokens,
    }


def embeddings_body(vector: ArrayLike | None) -> dict[str, Any]:
    """One vector as the model makes it, whatever its length; none where there was no text."""
    return {"embedding": [] if vector is None else cut(vector, None).tolist()}
