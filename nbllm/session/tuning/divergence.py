"""How far a model's next-token distributions are from another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbllm.errors import ModelLoadError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nbllm.llama.context import LlamaContext

_POSITIONS = 500
_MOST_BYTES = 1 << 28
"""Of one model's logits, which are held while the other computes: a vocabulary of 262,144 has 256 positions."""
_STEP_TOKENS = 64
_KV_TOKENS = 1024


def divergence(original: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The mean of the Kullback-Leibler divergences of `other` from `original`, in nats a token, from rows of logits.

    Raises:
        ModelLoadError: they are not of the same vocabulary, or not numbers.
    """
    import numpy as np

    if original.shape != other.shape:
        raise ModelLoadError("the model in its other format has another vocabulary")
    total = 0.0
    for before, after in zip(original, other, strict=True):
        expected, found = _log_softmax(before), _log_softmax(after)
        total += float(np.sum(np.exp(expected) * (expected - found)))
    mean = total / len(original)
    if not np.isfinite(mean):
        raise ModelLoadError("the model computes what is no number")
    return max(0.0, mean)  # rounding may leave less than nothing


def _log_softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    import numpy as np

    shifted = row.astype(np.float64) - float(row.max())
    normal: NDArray[np.float64] = shifted - np.log(np.sum(np.exp(shifted)))
    return normal


def logits(path: str, text: str, *, kv_type: str, threads: int) -> NDArray[np.float32]:
    """What the model expects after each token of the text, a row a token."""
    from nbllm.llama.backend import LlamaBackend

    backend = LlamaBackend(path, threads=threads)
    tokens = backend.tokenize(text, add_special=True, parse_special=False)
    num_rows = min(len(tokens), _POSITIONS, max(1, _MOST_BYTES // (4 * backend.vocabulary_size)))
    context = backend.make_context(kv_tokens=_KV_TOKENS, num_slots=1, unified=True, kv_type=kv_type)
    try:
        return _evaluated(context, tokens[:num_rows])
    finally:
        context.close()
        backend.close()


def _evaluated(context: LlamaContext, tokens: list[int]) -> NDArray[np.float32]:
    import numpy as np

    from nbllm.core import Row

    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(tokens), _STEP_TOKENS):
        step = [Row(token, start + at, 0, True) for at, token in enumerate(tokens[start : start + _STEP_TOKENS])]
        context.decode(step)
        rows.extend(context.logits(at).copy() for at in range(len(step)))
    return np.stack(rows)
