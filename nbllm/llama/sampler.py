"""Choosing a token from a row of logits, by llama.cpp's native samplers."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Any

from nbllm.core import SamplingParams
from nbllm.errors import EngineError, ParameterError
from nbllm.llama.context import LlamaContext
from nbllm.llama.model import LlamaModel

_FORCED = 1e4
"""What a bias of 100 adds: more than any logit, so that nothing else is left, and finite, so that a softmax works."""


class Sampler:
    """One sequence's way of choosing tokens: bias, penalties, truncation, temperature, in llama.cpp's usual order.

    OpenAI's presence and frequency penalties count what was generated; `repeat_penalty` looks at the last
    `repeat_last_n` tokens of prompt and answer. They are two native samplers with different memories.

    Args:
        params: with every default filled in.
        prompt_tail: the end of the prompt, for `repeat_penalty`.
        max_generated: an upper bound of what will be generated, which sizes the counting penalties' memory.
    """

    def __init__(
        self, model: LlamaModel, params: SamplingParams, prompt_tail: Sequence[int], max_generated: int
    ) -> None:
        self._quick = model.library.quick
        api = model.api
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        if not chain:
            raise EngineError("llama.cpp could not make a sampler")
        self._chain = chain
        self._finalizer = weakref.finalize(self, _free, model.library, chain)
        self.has_memory = False
        self._model = model
        self._add_bias(params)
        self._add_penalties(params, prompt_tail, max_generated)
        self._add_choice(params)

    def close(self) -> None:
        self._finalizer()

    def sample(self, context: LlamaContext, row: int) -> int:
        """Choose from an output row, and remember the choice."""
        return int(self._quick.llama_sampler_sample(self._chain, context.pointer, row))

    def accept(self, token: int) -> None:
        """Remember a token that was not chosen here: a constraint forced it."""
        self._quick.llama_sampler_accept(self._chain, token)

    def _add(self, sampler: Any) -> Any:
        if not sampler:  # NULL is falsy but not None, and a chain would crash on it
            raise EngineError("llama.cpp could not make a sampler")
        self._model.api.llama_sampler_chain_add(self._chain, sampler)
        return sampler

    def _add_bias(self, params: SamplingParams) -> None:
        if not params.logit_bias:
            return
        if sum(bias <= -100.0 for bias in params.logit_bias.values()) >= self._model.vocabulary_size:
            raise ParameterError("logit_bias", "bans every token that there is: leave one out")
        api = self._model.api
        table = (api.llama_logit_bias * len(params.logit_bias))()
        for entry, (token, bias) in zip(table, params.logit_bias.items(), strict=True):
            entry.token, entry.bias = token, _effective_bias(bias)
        self._add(api.llama_sampler_init_logit_bias(self._model.vocabulary_size, len(table), table))

    def _add_penalties(self, params: SamplingParams, prompt_tail: Sequence[int], max_generated: int) -> None:
        make, size = self._model.api.llama_sampler_init_penalties, self._model.vocabulary_size
        window, repeat = params.repeat_last_n or 0, params.repeat_penalty or 1.0
        if window and repeat != 1.0:
            self.has_memory = True
            sampler = self._add(make(size, window, repeat, 0.0, 0.0))
            for token in prompt_tail[-window:]:
                self._quick.llama_sampler_accept(sampler, token)
        frequency, presence = params.frequency_penalty or 0.0, params.presence_penalty or 0.0
        if frequency or presence:
            self.has_memory = True
            self._add(make(size, max_generated, 1.0, frequency, presence))

    def _add_choice(self, params: SamplingParams) -> None:
        api = self._model.api
        if not params.temperature:
            self._add(api.llama_sampler_init_greedy())
            return
        if params.top_k:
            self._add(api.llama_sampler_init_top_k(params.top_k))
        if params.typical_p is not None and params.typical_p < 1.0:
            self._add(api.llama_sampler_init_typical(params.typical_p, 1))
        if params.top_p is not None and params.top_p < 1.0:
            self._add(api.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p:
            self._add(api.llama_sampler_init_min_p(params.min_p, 1))
        self._add(api.llama_sampler_init_temp(params.temperature))
        self._add(api.llama_sampler_init_dist(params.seed))


def _effective_bias(bias: float) -> float:
    if bias <= -100.0:
        return float("-inf")
    return _FORCED if bias >= 100.0 else bias


def _free(bound: Any, chain: Any) -> None:
    if os.getpid() == bound.pid:
        bound.api.llama_sampler_free(chain)
