"""`POST /v1/embeddings`: what is asked, and the answer."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from nbllm.core.numbers import Range
from nbllm.errors import ParameterError
from nbllm.wire.decoding import decoded, unknown_keys
from nbllm.wire.openai.lora import Switch, switches
from nbllm.wire.openai.prompts import texts_or_tokens
from nbllm.wire.openai.sampling import checked_model, checked_timeout, keep_alive_s
from nbllm.wire.openai.shapes import IGNORED, EmbeddingsBody

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

_FORMATS = ("float", "base64")
DIMENSIONS = Range(int, 1, 2**20, "from 1 to the model's own number")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedCall:
    """A request for vectors, of texts or of token ids: one of `inputs` and `tokens` is None.

    Attributes:
        base64: whether the vectors are sent as little-endian float32 in base64.
        dimensions: how many of each vector's numbers to keep.
        keep_alive, user, unknown, lora: as in ChatCall.
    """

    model: str
    inputs: tuple[str, ...] | None
    tokens: tuple[tuple[int, ...], ...] | None
    base64: bool
    dimensions: int | None
    timeout_s: float | None
    keep_alive: float | None
    user: str | None
    unknown: tuple[str, ...]
    lora: tuple[Switch, ...] | None = None


def parse_embeddings(body: bytes) -> EmbedCall:
    """Read a request. Raises as `parse_chat` does."""
    given, raw = decoded(body, EmbeddingsBody)
    inputs = texts_or_tokens(given.input, "input")
    is_text = isinstance(inputs[0], str)
    if is_text and "" in inputs:
        at = "input" if isinstance(given.input, str) else f"input[{inputs.index('')}]"
        raise ParameterError(at, "is empty: there is nothing to embed")
    if given.encoding_format not in (None, *_FORMATS):
        raise ParameterError("encoding_format", f"{given.encoding_format!r:.60} is not one of {', '.join(_FORMATS)}")
    return EmbedCall(
        model=checked_model(given.model),
        inputs=cast("tuple[str, ...]", inputs) if is_text else None,
        tokens=None if is_text else cast("tuple[tuple[int, ...], ...]", inputs),
        base64=given.encoding_format == "base64",
        dimensions=None if given.dimensions is None else int(DIMENSIONS.checked("dimensions", given.dimensions)),
        timeout_s=checked_timeout(given.timeout),
        keep_alive=keep_alive_s(given.keep_alive),
        user=given.user,
        unknown=unknown_keys(raw, EmbeddingsBody, IGNORED),
        lora=switches(given.lora),
    )


def embeddings_body(
    model: str,
    vectors: Sequence[ArrayLike],
    prompt_tokens: int,
    *,
    in_base64: bool = False,
    dimensions: int | None = None,
) -> dict[str, Any]:
    """The answer to an EmbedCall: one unit vector an input, in the order of the inputs.

    Raises:
        ParameterError: the model's vectors have fewer than `dimensions` numbers.
    """
    parts = [cut(vector, dimensions) for vector in vectors]
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if in_base64 else vector.tolist()}
        for index, vector in enumerate(parts)
    ]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def cut(given: ArrayLike, dimensions: int | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first numbers, of length 1 again."""
    import numpy as np

    vector: np.ndarray[Any, np.dtype[np.float32]] = np.asarray(given, dtype="<f4")
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        raise ParameterError("dimensions", f"{dimensions:,} is too many: this model's vectors have {len(vector):,}")
    part = vector[:dimensions]
    length = float(np.linalg.norm(part))
    return part / np.float32(length) if length > 0 else part


def _base64(vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")
