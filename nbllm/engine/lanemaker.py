"""Contexts, and lanes over them, as the memory plan has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nbllm.core import Adapter, ModelInfo
from nbllm.engine.adapters import AdapterFiles, total_bytes
from nbllm.engine.backend import Backend
from nbllm.engine.lane import Books, Lane
from nbllm.engine.lanes import LaneKey
from nbllm.engine.plan import FIXED_WIDTH, Plan, lane_tokens

FIXED_GRID = 32
"""Its prefill slices: short enough for a step, and as fast as longer ones on a CPU."""
_BRANCH_SLOTS = 32
"""Choices that a step can evaluate side by side. A slot that shares its cells costs nothing but its name."""
_STORE_SHARE = 4
"""Of the plain lane's host memory for idle prefixes, what one with adapters gets."""


class LaneMaker:
    """Makes the lanes of one engine.

    Args:
        wake: called when a lane has something to do.
        memory_fraction: of the free memory, what the context for a set of adapters may take.
        free_memory: asked for that.
    """

    def __init__(
        self,
        backend: Backend,
        model: ModelInfo,
        plan: Plan,
        files: AdapterFiles,
        *,
        wake: Callable[[], None],
        clock: Callable[[], float],
        memory_fraction: float,
        free_memory: Callable[[], int],
    ) -> None:
        self._backend, self._model, self._plan, self._files = backend, model, plan, files
        self._wake, self._clock = wake, clock
        self._memory_fraction, self._free_memory = memory_fraction, free_memory

    def free(self) -> Lane:
        """One pool for all its sequences."""
        return self._free(self._plan.kv_tokens)

    def fixed(self) -> Lane:
        """A KV stream for each slot, and fixed shapes."""
        return self._fixed()

    def adapted(self, key: LaneKey, books: Books) -> Lane:
        """One of either, which computes with adapters. On the engine's thread only.

        Raises:
            InsufficientMemoryError: there is no memory for it now.
            ModelLoadError: a file has changed since it was checked, or llama.cpp refuses it.
        """
        self._files.check_unchanged(key.adapters)
        adapters = [adapter for adapter, _ in key.adapters]
        plan = self._plan
        if key.fixed:
            cells = plan.fixed_tokens * FIXED_WIDTH
            self._tokens(key, cells, cells)
            return self._fixed(adapters, books=books)
        tokens = self._tokens(key, plan.kv_tokens, min(plan.context_length, plan.kv_tokens))
        return self._free(tokens, adapters, books=books)

    def _tokens(self, key: LaneKey, wanted: int, least: int) -> int:
        return lane_tokens(
            self._model,
            self._plan,
            wanted,
            least,
            free_bytes=self._free_memory(),
            fraction=self._memory_fraction,
            extra_bytes=total_bytes(key.adapters),
        )

    def _free(self, kv_tokens: int, adapters: Sequence[Adapter] = (), books: Books | None = None) -> Lane:
        num_spare = 0 if self._backend.is_recurrent else _BRANCH_SLOTS
        context = self._backend.make_context(
            kv_tokens=kv_tokens,
            num_slots=self._plan.max_sequences + 1 + num_spare,
            unified=True,
            kv_type=self._plan.kv_type,
            adapters=adapters,
        )
        return Lane(
            context,
            max_batch_sequences=self._plan.max_sequences,
            store_bytes=self._store_bytes(adapters),
            wake=self._wake,
            clock=self._clock,
            num_spare=num_spare,
            books=books,
        )

    def _fixed(self, adapters: Sequence[Adapter] = (), books: Books | None = None) -> Lane:
        context = self._backend.make_context(
            kv_tokens=self._plan.fixed_tokens,
            num_slots=FIXED_WIDTH,
            unified=False,
            kv_type=self._plan.kv_type,
            adapters=adapters,
        )
        return Lane(
            context,
            max_batch_sequences=FIXED_WIDTH,
            store_bytes=self._store_bytes(adapters),
            wake=self._wake,
            clock=self._clock,
            grid=FIXED_GRID,
            shared=False,
            books=books,
        )

    def _store_bytes(self, adapters: Sequence[Adapter]) -> int:
        return self._plan.store_bytes // (_STORE_SHARE if adapters else 1)
