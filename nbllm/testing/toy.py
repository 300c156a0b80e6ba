"""A toy model in llama.cpp's place, and the real engine over it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from nbllm.core import Adapter, SamplingParams
from nbllm.engine.local import LocalEngine
from nbllm.engine.plan import Plan
from nbllm.errors import EngineError, InvalidRequestError, ParameterError
from nbllm.testing.choosing import ToyMatcher, ToySampler
from nbllm.testing.memory import ToyContext
from nbllm.testing.vocabulary import (
    BOS,
    CHATML,
    EMBEDDING_LENGTH,
    EOS,
    IM_END,
    SPECIAL_NAMES,
    SPECIAL_TEXTS,
    TOY_MODEL,
    VOCABULARY_SIZE,
    split_special,
)


class ToyBackend:
    """A model of bytes, without weights. Implements `engine.backend.Backend`.

    Args:
        chat_template: None makes it a base model.
        window: tokens back that a layer looks; a prefix shorter than what left the window cannot be cut to.
        recurrent: the state has no middle, so that nothing can be cut off at all.
        ends: how likely an answer is to end, as what is added to the logits of the end tokens.
        fail_after: evaluate so many steps, then raise EngineError.
        max_batch: tokens that a step can have.
    """

    vocabulary_size = VOCABULARY_SIZE
    embedding_length = EMBEDDING_LENGTH
    adds_bos = True
    pooling = "mean"

    def __init__(
        self,
        *,
        chat_template: str | None = CHATML,
        window: int | None = None,
        recurrent: bool = False,
        ends: float = 0.0,
        fail_after: int | None = None,
        max_batch: int = 512,
        recommended: SamplingParams | None = None,
    ) -> None:
        self.chat_template = chat_template
        self.window, self.recurrent, self.ends = window, recurrent, ends
        self.fail_after, self.max_batch = fail_after, max_batch
        self.contexts: list[ToyContext] = []
        self.is_closed = False
        self.pieces: Mapping[int, bytes] = {
            token: bytes([token]) if token < BOS else b"" for token in range(VOCABULARY_SIZE)
        }
        self._recommended = recommended or SamplingParams()

    @property
    def is_recurrent(self) -> bool:
        return self.recurrent

    # ---- vocabulary

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        try:
            ids = [BOS] if add_special else []
            for piece, token in split_special(text) if parse_special else [(text, None)]:
                ids += piece.encode("utf-8") if token is None else [token]
        except UnicodeEncodeError as error:
            raise InvalidRequestError("the text has a lone surrogate, which is not a character") from error
        return ids

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self.pieces[token] for token in tokens)

    def is_end(self, token: int) -> bool:
        return token in (IM_END, EOS)

    def check_ids(self, tokens: Sequence[int], param: str) -> None:
        for token in tokens:
            if not 0 <= token < VOCABULARY_SIZE:
                raise ParameterError(param, f"{token} is not a token of this model: its ids go from 0 to 261")

    def special(self, name: str) -> int | None:
        return SPECIAL_NAMES.get(name)

    def special_text(self, name: str) -> str:
        return SPECIAL_TEXTS[SPECIAL_NAMES[name]] if name in SPECIAL_NAMES else ""

    def control_texts(self) -> tuple[str, ...]:
        return tuple(SPECIAL_TEXTS.values())

    def recommended_sampling(self) -> SamplingParams:
        return self._recommended

    # ---- parts

    def make_context(
        self, *, kv_tokens: int, num_slots: int, unified: bool, kv_type: str, adapters: Sequence[Adapter] = ()
    ) -> ToyContext:
        """Adapters change what the model says by the names of their files and their scales."""
        context = ToyContext(self, kv_tokens=kv_tokens, num_slots=num_slots, unified=unified, adapters=adapters)
        self.contexts.append(context)
        return context

    def make_sampler(self, params: SamplingParams, prompt_tail: Sequence[int], max_generated: int) -> ToySampler:
        return ToySampler(params, prompt_tail)

    def make_matcher(self, grammar: str, limits: Any = None) -> ToyMatcher:
        return ToyMatcher(grammar, limits)

    def close(self) -> None:
        if not all(context.is_closed for context in self.contexts):
            raise EngineError("the model was closed before its contexts")
        self.is_closed = True


class _ToyEngine(LocalEngine):
    """Has a decode thread of its own, which ends with it: a later real model must not find a toy's settings."""

    def close(self) -> None:
        super().close()
        if os.getpid() == self._pid:  # in a forked child the thread is not there, and what it locked stays locked
            self._driver.stop()


def toy_engine(
    backend: ToyBackend | None = None,
    *,
    context_length: int = 512,
    max_sequences: int = 4,
    kv_tokens: int | None = None,
    store_bytes: int = 2**20,
    **options: Any,
) -> LocalEngine:
    """The real engine, in a thread of its own, over a toy model. `options` are those of `ToyBackend`."""
    from nbllm.config import load_config
    from nbllm.engine.driver import Driver

    backend = backend or ToyBackend(**options)
    pool = kv_tokens or context_length * max_sequences
    plan = Plan(
        context_length=context_length,
        max_sequences=max_sequences,
        kv_tokens=pool,
        kv_type="f16",
        store_bytes=store_bytes,
        fixed_tokens=context_length,
        summary="toy: bytes without a meaning",
    )
    return _ToyEngine(backend, TOY_MODEL, plan, Driver(load_config().cores_file), threads=1)
