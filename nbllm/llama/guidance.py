"""llguidance over this model's vocabulary: which tokens may come next."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

from nbllm.errors import ConstraintError
from nbllm.llama.model import LlamaModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Guide:
    """The grammar engine of one model. Building it reads the whole vocabulary, a third of a second, once."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def matcher(self, grammar: str, limits: Any = None) -> Matcher:
        """Start a grammar, in llguidance's own language, under its `LLParserLimits`.

        Raises:
            ConstraintError: the grammar does not compile.
        """
        from llguidance import LLMatcher

        tokenizer = self._loaded()
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise ConstraintError(f"the constraint is not supported: {_first_line(matcher.get_error())}")
        return Matcher(matcher, self._model.vocabulary_size)

    def _loaded(self) -> Any:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _build(self._model)
            return self._tokenizer


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: Any, vocabulary_size: int) -> None:
        import numpy as np

        self._matcher = matcher
        self._bits = np.zeros((vocabulary_size + 31) // 32, dtype=np.int32)
        self._size = vocabulary_size

    def allows(self, token: int) -> bool:
        """Whether the token may come next; changes nothing."""
        return bool(self._matcher.validate_tokens([token]) == 1)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Write -inf over every token that may not come next.

        Raises:
            ConstraintError: the grammar got beyond llguidance's limits here.
        """
        import numpy as np

        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            problem = _first_line(self._matcher.get_error())
            raise ConstraintError(f"the constraint became too complex to go on with ({problem}); simplify it")
        allowed = np.unpackbits(self._bits.view(np.uint8), count=self._size, bitorder="little")
        logits[allowed == 0] = -np.inf

    def consume(self, token: int) -> bool:
        """Go on with the token; False when the grammar does not allow it."""
        return bool(self._matcher.consume_token(token))

    def forced(self) -> list[int]:
        """The tokens that the grammar leaves no choice about; changes nothing."""
        return list(self._matcher.compute_ff_tokens())

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end may come."""
        return bool(self._matcher.is_stopped())


def _build(model: LlamaModel) -> Any:
    from llguidance.llamacpp import lltokenizer_from_vocab

    ends = [token for token in range(model.vocabulary_size) if model.is_end(token)]
    with warnings.catch_warnings():  # it calls functions of llama.cpp by names that are deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        return lltokenizer_from_vocab(model.vocab, eos_token=ends or None)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else "no reason given"
