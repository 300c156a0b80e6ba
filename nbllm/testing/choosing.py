"""The toy's sampler and matcher."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbllm.core import (
    SamplingParams,
)
from nbllm.engine.backend import Context
from nbllm.errors import ConstraintError
from nbllm.testing.vocabulary import (
    VOCABULARY_SIZE,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ToySampler:
    """Chooses as llama.cpp's chain does, more or less: bias, penalties, truncation, temperature, a seeded draw."""

    def __init__(self, params: SamplingParams, prompt_tail: Sequence[int]) -> None:
        import numpy as np

        self._params = params
        window = params.repeat_last_n or 0
        self._recent: deque[int] = deque(prompt_tail[-window:] if window else (), maxlen=window)
        self._counts = np.zeros(VOCABULARY_SIZE, np.float32)
        self._random = np.random.default_rng(params.seed)
        penalties = (params.presence_penalty, params.frequency_penalty, (params.repeat_penalty or 1.0) - 1.0)
        self.has_memory = any(penalties)
        self.is_closed = False

    def sample(self, context: Context, row: int) -> int:
        import numpy as np

        logits = self._penalized(context.logits(row).astype(np.float64))
        if not self._params.temperature:
            token = int(logits.argmax())
        else:
            chances = _truncated(_softmax(logits), self._params)
            chances = _softmax(np.log(np.maximum(chances, 1e-300)) / self._params.temperature)
            token = int(self._random.choice(VOCABULARY_SIZE, p=chances))
        self.accept(token)
        return token

    def accept(self, token: int) -> None:
        self._counts[token] += 1
        self._recent.append(token)

    def close(self) -> None:
        self.is_closed = True

    def _penalized(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        params = self._params
        for token, bias in params.logit_bias.items():
            logits[token] += -float("inf") if bias <= -100 else 1e4 if bias >= 100 else bias
        repeat = params.repeat_penalty or 1.0
        for token in set(self._recent):
            logits[token] = logits[token] / repeat if logits[token] > 0 else logits[token] * repeat
        logits -= (params.presence_penalty or 0.0) * (self._counts > 0)
        logits -= (params.frequency_penalty or 0.0) * self._counts
        return logits


class ToyMatcher:
    """A real llguidance matcher over the toy's bytes."""

    def __init__(self, grammar: str, limits: Any) -> None:
        from llguidance import LLMatcher, LLTokenizer

        self._matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0, limits=limits)
        if self._matcher.is_error():
            raise ConstraintError(f"the constraint is not supported: {self._matcher.get_error().splitlines()[0]}")

    def allows(self, token: int) -> bool:
        return bool(self._matcher.validate_tokens([token]) == 1)

    def mask(self, logits: NDArray[np.float32]) -> None:
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        logits[np.unpackbits(bits, count=VOCABULARY_SIZE, bitorder="little") == 0] = -np.inf

    def consume(self, token: int) -> bool:
        return bool(self._matcher.consume_token(token))

    def forced(self) -> list[int]:
        return list(self._matcher.compute_ff_tokens())

    @property
    def is_complete(self) -> bool:
        return bool(self._matcher.is_stopped())


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    chances = np.exp(logits - logits.max())
    return np.asarray(chances / chances.sum(), np.float64)


def _truncated(chances: NDArray[np.float64], params: SamplingParams) -> NDArray[np.float64]:
    """What top_k, typical_p, top_p and min_p leave, each of them of what the one before left."""
    import numpy as np

    order = np.argsort(-chances, kind="stable")
    if params.top_k:
        chances[order[params.top_k :]] = 0
    if params.typical_p is not None and params.typical_p < 1.0:
        surprise = -np.log(np.maximum(chances, 1e-300))
        unusual = np.abs(surprise - float((chances * surprise).sum()))
        chances = _nucleus(chances, np.argsort(np.where(chances > 0, unusual, np.inf)), params.typical_p)
    if params.top_p is not None and params.top_p < 1.0:
        chances = _nucleus(chances, np.argsort(-chances, kind="stable"), params.top_p)
    if params.min_p:
        chances[chances < params.min_p * chances.max()] = 0
    return np.asarray(chances / chances.sum(), np.float64)


def _nucleus(chances: NDArray[np.float64], order: NDArray[np.intp], mass: float) -> NDArray[np.float64]:
    """The first tokens in `order` that together have `mass` of what is left; at least one."""
    import numpy as np

    before = np.cumsum(chances[order]) - chances[order]
    chances[order[before >= mass * chances.sum()]] = 0
    return chances
