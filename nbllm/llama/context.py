"""A llama.cpp context: one KV memory and what is computed on it.

Only the engine's thread may touch a context (two threads on one abort the process); `abort` alone is safe anywhere.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbllm.core import Adapter, Row, StepStatus
from nbllm.errors import EngineError, InsufficientMemoryError
from nbllm.llama import log
from nbllm.llama.adapter import LlamaAdapter, listing
from nbllm.llama.hugepages import KvAdvice
from nbllm.llama.library import Library
from nbllm.llama.model import LlamaModel
from nbllm.llama.owned import owned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_BATCH = 256
"""The default."""
_KV_TYPES = {"f16": "GGML_TYPE_F16", "q8_0": "GGML_TYPE_Q8_0"}


class LlamaContext:
    """Owns llama.cpp's context pointer and a batch that fits it.

    Args:
        kv_tokens: cells of the pool when `unified`, else of each of the `num_slots` streams.
        unified: sequences share one pool of cells, and a shared prefix is stored once; otherwise each has a stream
            of its own, whose numbers do not depend on what the others hold.
        flash_attention: one fused operation. A quantized KV needs it and a GPU is faster with it; on a CPU a slice of
            32 tokens at 1,600 takes 0.3 s without and 1.3 s with it (SmolLM2, 2 cores), since only slices of 64 and
            more are tiled.
        adapters: to compute with, always, in files that were checked.
        max_batch: tokens that a step can have.

    Raises:
        InsufficientMemoryError: llama.cpp could not allocate the context.
        ModelLoadError: it refused an adapter.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        kv_tokens: int,
        num_slots: int,
        threads: int,
        unified: bool = True,
        kv_type: str = "f16",
        swa_full: bool = True,
        flash_attention: bool = False,
        adapters: Sequence[Adapter] = (),
        max_batch: int = MAX_BATCH,
    ) -> None:
        self.model = model
        self.num_slots = num_slots
        self.max_batch = max_batch
        self.unified = unified
        api = model.api
        cells = kv_tokens if unified else kv_tokens * num_slots
        params = _context_params(api, cells, num_slots, threads, max_batch)
        params.kv_unified, params.swa_full = unified, swa_full
        params.flash_attn_type = (
            api.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attention else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.type_k = params.type_v = getattr(api, _KV_TYPES[kv_type])
        self._flag = ctypes.create_string_buffer(2)
        self._adapters: list[LlamaAdapter] = []
        self._load(adapters)  # first: llama.cpp makes room for the operations of those that are there
        with listing, log.captured(KvAdvice()) as errors:
            pointer = owned(api.llama_init_from_model, api.llama_free, model.pointer, params)
        if not pointer:
            self._unload()
            raise InsufficientMemoryError(
                f"no context of {kv_tokens:,} tokens could be made ({errors[0] if errors else 'no reason given'}); "
                "ask for a smaller context_length or fewer max_sequences"
            )
        self.pointer = pointer
        self._finalizer = weakref.finalize(self, _free, model.library, pointer)
        model.dependents.append(self._finalizer)
        self._memory = api.llama_get_memory(pointer)
        self._batch = _Batch(api, max_batch)
        self._threads = threads
        self._embeddings = False
        self._recurrent = bool(api.llama_model_is_recurrent(model.pointer) or api.llama_model_is_hybrid(model.pointer))
        _install_abort(api, pointer, self._flag)
        if self._adapters:
            _apply(api, pointer, self._adapters, [adapter.scale for adapter in adapters])

    @property
    def sequence_capacity(self) -> int:
        """Tokens that one sequence can have; llama.cpp rounds what was asked for up."""
        return int(self.model.api.llama_n_ctx_seq(self.pointer))

    @property
    def pool_capacity(self) -> int:
        """Cells in all."""
        return int(self.model.api.llama_n_ctx(self.pointer))

    def close(self) -> None:
        """Free the context and its adapters; twice is harmless."""
        self._finalizer()
        self._unload()

    def _load(self, adapters: Sequence[Adapter]) -> None:
        try:
            for adapter in adapters:
                self._adapters.append(LlamaAdapter(self.model, adapter.path))
        except BaseException:
            self._unload()
            raise

    def _unload(self) -> None:
        for adapter in self._adapters:
            adapter.close()

    # ---- computing

    def set_threads(self, threads: int) -> None:
        if threads != self._threads:
            self._quick.llama_set_n_threads(self.pointer, threads, threads)
            self._threads = threads

    def decode(self, rows: Sequence[Row], *, embeddings: bool = False) -> StepStatus:
        """Evaluate the rows. Changes the KV memory, also when it is aborted half-way: the caller cuts it back.

        Raises:
            EngineError: llama.cpp refused the batch.
        """
        if embeddings != self._embeddings:
            self._quick.llama_set_embeddings(self.pointer, embeddings)
            self._embeddings = embeddings
        self._batch.fill(rows)
        with log.expecting_abort(self._is_aborted):
            status = int(self.model.api.llama_decode(self.pointer, self._batch.struct))
        if status in (0, 1, 2):
            return StepStatus(status)
        raise EngineError(f"llama.cpp could not evaluate a batch of {len(rows)} tokens (llama_decode gave {status})")

    def abort(self, wanted: bool = True) -> None:
        """Stop the running decode, or take the wish back. Safe on any thread."""
        self._flag[0] = b"1" if wanted else b"\0"

    def _is_aborted(self) -> bool:
        return bool(self._flag[0] != b"\0")

    def logits(self, row: int) -> NDArray[np.float32]:
        """A writable view of one output row, shape (vocabulary,); valid until the next decode."""
        return self._view(self._quick.llama_get_logits_ith(self.pointer, row), self.model.vocabulary_size)

    def embedding(self, row: int) -> NDArray[np.float32]:
        """A view of one row's hidden state, shape (embedding length,); valid until the next decode."""
        return self._view(self._quick.llama_get_embeddings_ith(self.pointer, row), self.model.embedding_length)

    def _view(self, pointer: Any, length: int) -> NDArray[np.float32]:
        import numpy as np

        if not pointer:
            raise EngineError("llama.cpp has no output for a row that was asked for")
        return np.ctypeslib.as_array(pointer, shape=(length,))

    # ---- memory of one sequence

    def cut(self, slot: int, length: int) -> bool:
        """Keep the first `length` tokens of a sequence.

        Returns False when the memory cannot be cut there, and has then forgotten the sequence: recurrent states
        have no middle, and a sliding window may have dropped what the next token looks at. llama.cpp says true in
        the second case, so the oldest position that is left is checked too.
        """
        quick = self._quick
        if length > 0 and quick.llama_memory_seq_rm(self._memory, slot, length, -1):
            oldest = int(quick.llama_memory_seq_pos_min(self._memory, slot))
            newest = int(quick.llama_memory_seq_pos_max(self._memory, slot))
            if newest == length - 1 and (self._recurrent or oldest <= self._oldest_needed(length)):
                return True
        self.forget(slot)
        return length == 0

    def _oldest_needed(self, length: int) -> int:
        window = self.model.sliding_window
        return max(0, length - window) if window else 0

    def forget(self, slot: int) -> None:
        self._quick.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def fork(self, source: int, target: int, length: int) -> bool:
        """Make `target` start with the first `length` tokens of `source`; False as in `cut`."""
        if not self.unified:
            return self.restore(target, self.save(source), length)
        self.forget(target)
        self._quick.llama_memory_seq_cp(self._memory, source, target, 0, -1)
        return self.cut(target, length)

    def save(self, slot: int) -> bytes:
        """The state of a sequence, as `restore` takes it; about a millisecond for ten megabytes."""
        api = self.model.api
        size = int(api.llama_state_seq_get_size(self.pointer, slot))
        buffer = (ctypes.c_uint8 * size)()
        written = int(api.llama_state_seq_get_data(self.pointer, buffer, size, slot))
        return bytes(memoryview(buffer)[:written])

    def restore(self, slot: int, state: bytes, length: int) -> bool:
        """Put a saved state into a slot and keep its first `length` tokens.

        False, with the slot empty, when there is no room for the whole state or it cannot be cut there.
        """
        self.forget(slot)
        pointer = ctypes.cast(ctypes.c_char_p(state), ctypes.POINTER(ctypes.c_uint8))
        if not int(self.model.api.llama_state_seq_set_data(self.pointer, pointer, len(state), slot)):
            self.forget(slot)
            return False
        return self.cut(slot, length)

    @property
    def _quick(self) -> Any:
        return self.model.library.quick


class _Batch:
    """llama.cpp's batch struct over arrays that are made once."""

    def __init__(self, api: Any, capacity: int) -> None:
        self._tokens = (ctypes.c_int32 * capacity)()
        self._positions = (ctypes.c_int32 * capacity)()
        self._slots = (ctypes.c_int32 * capacity)()
        self._outputs = (ctypes.c_int8 * capacity)()
        self._counts = (ctypes.c_int32 * capacity)(*([1] * capacity))
        step = ctypes.sizeof(ctypes.c_int32)
        base = ctypes.addressof(self._slots)
        slot_pointer = ctypes.POINTER(ctypes.c_int32)
        self._slot_pointers = (slot_pointer * (capacity + 1))(
            *(ctypes.cast(base + index * step, slot_pointer) for index in range(capacity))
        )
        self.struct = api.llama_batch(
            n_tokens=0,
            token=self._tokens,
            embd=None,
            pos=self._positions,
            n_seq_id=self._counts,
            seq_id=self._slot_pointers,
            logits=self._outputs,
        )

    def fill(self, rows: Sequence[Row]) -> None:
        for index, row in enumerate(rows):
            self._tokens[index] = row.token
            self._positions[index] = row.position
            self._slots[index] = row.slot
            self._outputs[index] = row.output
        self.struct.n_tokens = len(rows)


def _context_params(api: Any, cells: int, num_slots: int, threads: int, max_batch: int) -> Any:
    params = api.llama_context_default_params()
    params.n_ctx = cells
    params.n_batch = params.n_ubatch = max_batch
    params.n_seq_max = num_slots
    params.n_threads = params.n_threads_batch = threads
    params.pooling_type = api.LLAMA_POOLING_TYPE_NONE
    params.no_perf = True
    return params


def _apply(api: Any, pointer: Any, adapters: Sequence[LlamaAdapter], scales: Sequence[float]) -> None:
    count = len(adapters)
    pointers = (api.llama_adapter_lora_p_ctypes * count)(*(adapter.pointer for adapter in adapters))
    status = int(api.llama_set_adapters_lora(pointer, pointers, count, (ctypes.c_float * count)(*scales)))
    if status:
        raise EngineError(f"llama.cpp could not use {count} adapters (llama_set_adapters_lora gave {status})")


def _install_abort(api: Any, pointer: Any, flag: Any) -> None:
    """Let llama.cpp ask a C function whether to stop, not a Python one.

    llama.cpp asks between any two operations of the graph, hundreds of times a token; a Python callback would wait
    for the GIL each time, 5 ms beside busy Python. `strlen` of a one-byte buffer is 0 until the byte is set.
    """
    libc = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    callback = ctypes.cast(libc.strlen, api.ggml_abort_callback)
    api.llama_set_abort_callback(pointer, callback, ctypes.cast(flag, ctypes.c_void_p))


def _free(bound: Library, pointer: Any) -> None:
    if os.getpid() == bound.pid:
        bound.api.llama_free(pointer)
