"""llguidance over this model's vocabulary: which tokens may come next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nbllm.errors import ConstraintError
from nbllm.llama.model import LlamaModel, Pieces

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_FEW = 128
"""Allowed tokens that are cheaper to list than to mask the others."""


class Guide:
    """The grammar engine of one model. Building it reads the whole vocabulary, a fifth of a second, once."""

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
        return Matcher(matcher, self._model)

    def _loaded(self) -> Any:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _build(self._model)
            return self._tokenizer


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: Any, model: LlamaModel) -> None:
        self._matcher = matcher
        self._size = model.vocabulary_size
        self._fill = model.library.quick.memcpy
        self._nothing = model.impossible_logits

    def allows(self, token: int) -> bool:
        """Whether the token may come next; changes nothing."""
        return bool(self._matcher.validate_tokens([token]) == 1)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Write -inf over every token that may not come next.

        Raises:
            ConstraintError: the grammar got beyond llguidance's limits here.
        """
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            problem = _first_line(self._matcher.get_error())
            raise ConstraintError(f"the constraint became too complex to go on with ({problem}); simplify it")
        allowed = int.from_bytes(bits, "little")
        if allowed.bit_count() <= _FEW:
            self._keep_few(allowed, logits)
        else:
            self._mask_many(bits, logits)

    def _keep_few(self, allowed: int, logits: NDArray[np.float32]) -> None:
        """Without numpy, which gives up the GIL at each operation on a row and waits for it beside busy Python."""
        kept = [(token, logits[token]) for token in _set_bits(allowed)]
        self._fill(logits.ctypes.data, self._nothing, logits.nbytes)
        for token, value in kept:
            logits[token] = value

    def _mask_many(self, bits: bytes, logits: NDArray[np.float32]) -> None:
        import numpy as np

        allowed = np.unpackbits(np.frombuffer(bits, np.uint8), count=self._size, bitorder="little")
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
    """llguidance's tokenizer; its own way to read a vocabulary would import the whole of llama-cpp-python."""
    from llguidance import LLTokenizer

    ids = range(model.vocabulary_size)
    return LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]  # its stub leaves it out
        tokens=list(_token_bytes(model)),
        vocab_ptr=model.vocab,
        tokenize_fptr=model.library.address("llama_tokenize"),
        eos_token=[token for token in ids if model.is_end(token)] or model.api.llama_vocab_eos(model.vocab),
        slices=None,
    )


def _token_bytes(model: LlamaModel) -> Iterator[bytes]:
    """Each token's text as llguidance wants it: after a byte 0xFF for one that ordinary text must not become."""
    api, pieces = model.api, Pieces(model, special=True)
    for token in range(model.vocabulary_size):
        data, attributes = pieces[token], api.llama_vocab_get_attr(model.vocab, token)
        is_tag = data.startswith(b"<") and data.endswith(b">")
        marked = api.LLAMA_TOKEN_ATTR_CONTROL | (api.LLAMA_TOKEN_ATTR_USER_DEFINED if is_tag else 0)
        yield b"\xff" + data if attributes & marked else data


def _set_bits(number: int) -> Iterator[int]:
    """Positions of the ones, lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else "no reason given"
