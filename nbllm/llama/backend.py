"""A model as the engine wants it: one object that makes contexts, samplers and matchers for its GGUF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbllm.core import Adapter, SamplingParams
from nbllm.errors import UnsupportedError
from nbllm.llama.context import MAX_BATCH, LlamaContext
from nbllm.llama.guidance import Guide, Matcher
from nbllm.llama.model import LlamaModel
from nbllm.llama.sampler import Sampler


class LlamaBackend(LlamaModel):
    """A LlamaModel that makes what an engine needs.

    Args:
        threads: what contexts start with.
        swa_full: keep whole sliding-window caches, so that any prefix can be reused.
        flash_attention: None uses it where it helps: on a GPU, and with a quantized KV, which needs it.
        max_batch: tokens that a step can have.
    """

    def __init__(
        self,
        path: str,
        *,
        gpu_layers: int = -1,
        use_mmap: bool = True,
        threads: int = 1,
        swa_full: bool = True,
        flash_attention: bool | None = None,
        max_batch: int = MAX_BATCH,
    ) -> None:
        super().__init__(path, gpu_layers=gpu_layers, use_mmap=use_mmap)
        self._threads = threads
        self._swa_full = swa_full
        self._flash_attention = flash_attention
        self._max_batch = max_batch
        self._guide = Guide(self)
        if not self.can_generate:
            self.close()
            raise UnsupportedError(f"{path} is an encoder, which cannot generate text; load a decoder model")

    @property
    def is_recurrent(self) -> bool:
        """Whether a sequence has a state of its own, as large for one token as for thousands."""
        api = self.api
        return bool(api.llama_model_is_recurrent(self.pointer) or api.llama_model_is_hybrid(self.pointer))

    def make_context(
        self, *, kv_tokens: int, num_slots: int, unified: bool, kv_type: str, adapters: Sequence[Adapter] = ()
    ) -> LlamaContext:
        return LlamaContext(
            self,
            kv_tokens=kv_tokens,
            num_slots=num_slots,
            threads=self._threads,
            unified=unified,
            kv_type=kv_type,
            swa_full=self._swa_full,
            flash_attention=self._uses_flash_attention(kv_type),
            adapters=adapters,
            max_batch=self._max_batch,
        )

    def unusual_flash_attention(self, kv_type: str) -> bool | None:
        """What was asked for, where that is not what None would mean."""
        return None if self._flash_attention == self._helps_flash_attention(kv_type) else self._flash_attention

    def _uses_flash_attention(self, kv_type: str) -> bool:
        return self._helps_flash_attention(kv_type) if self._flash_attention is None else self._flash_attention

    def _helps_flash_attention(self, kv_type: str) -> bool:
        return self.library.has_gpu or kv_type != "f16"

    def make_sampler(self, params: SamplingParams, prompt_tail: Sequence[int], max_generated: int) -> Sampler:
        return Sampler(self, params, prompt_tail, max_generated)

    def make_matcher(self, grammar: str, limits: Any = None) -> Matcher:
        return self._guide.matcher(grammar, limits)
