"""How much context fits into this machine: the memory plan, made from metadata before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nbllm.core import ModelInfo
from nbllm.errors import InsufficientMemoryError, ParameterError

KV_TYPES = {"f16": 1.0, "q8_0": 17 / 32}  # bytes relative to f16: q8_0 stores 32 values and a scale in 34 bytes
_CONTEXTS = (8192, 4096, 2048, 1024, 512)
_DEFAULT_POOL = 16384
_MULTIPLE = 256  # llama.cpp rounds the cells up to it
_UNKNOWN_KV_BYTES = 128 * 1024  # a token of an 8B model, for a file that does not say
STEP_TOKENS = 256
"""That a step can have where nothing else is asked for."""
_HEAD_LENGTH = 128  # of most models
_MIB, _GIB = 2**20, 2**30
FIXED_WIDTH = 8
"""Sequences of a step in the reproducible lane, always; a property of the text it makes, so not a setting."""
_MOST_FIXED, _LEAST_FIXED = 4096, 512
_LEAST_STORE, _STORE_SHARE = 256 * _MIB, 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What an engine will allocate.

    Attributes:
        context_length: tokens that one sequence may have.
        max_sequences: that run side by side; one more slot is kept for a person beside batch work.
        kv_tokens: cells of the pool they share.
        kv_type: "f16" or "q8_0".
        store_bytes: host memory for idle prefixes.
        fixed_tokens: that each of the reproducible lane's `FIXED_WIDTH` sequences may have; 0 when it does not fit.
        summary: one line for a person.
        max_batch: tokens that a step can have.
    """

    context_length: int
    max_sequences: int
    kv_tokens: int
    kv_type: str
    store_bytes: int
    fixed_tokens: int
    summary: str
    max_batch: int = STEP_TOKENS


@dataclass(frozen=True, slots=True)
class _Memory:
    """What the model takes, and what there is."""

    model: ModelInfo
    free: int
    usable: int
    step_tokens: int = STEP_TOKENS

    def kv_bytes(self, tokens: int, kv_type: str) -> int:
        return int(tokens * (self.model.kv_bytes_per_token or _UNKNOWN_KV_BYTES) * KV_TYPES[kv_type])

    @property
    def fixed(self) -> int:
        """Weights, and a step's activations, of which the logits of a full step are the most."""
        activations = 4 * (self.model.vocabulary_size + 8 * self.model.embedding_length)
        return self.model.size_bytes + self.step_tokens * activations

    def scratch(self, tokens: int, kv_type: str) -> int:
        """Attention weights of a full step over the pool; a quantized KV implies flash attention, which has none."""
        heads = self.model.embedding_length // _HEAD_LENGTH
        return self.step_tokens * 4 * heads * tokens if kv_type == "f16" else 0

    def largest_pool(self, kv_type: str) -> int:
        left = self.usable - self.fixed
        per_token = (self.kv_bytes(_MULTIPLE, kv_type) + self.scratch(_MULTIPLE, kv_type)) / _MULTIPLE
        return int(left / per_token) // _MULTIPLE * _MULTIPLE if left > 0 else 0


def plan(
    model: ModelInfo,
    *,
    free_bytes: int,
    fraction: float,
    context_length: int | None = None,
    max_sequences: int = 8,
    kv_tokens: int | None = None,
    kv_type: str | None = None,
    max_batch: int = STEP_TOKENS,
) -> Plan:
    """Choose what was not asked for, so that it fits; refuse what was asked for and does not.

    Args:
        free_bytes: memory that this process may still take.
        fraction: how much of it may be planned with; the rest is headroom for the user's own data.

    Raises:
        ParameterError: a value is out of range.
        InsufficientMemoryError: it cannot fit; the message has the numbers and what to change.
    """
    _check(model, context_length, max_sequences, kv_tokens, kv_type)
    memory = _Memory(model, free_bytes, int(free_bytes * fraction), max_batch)
    for length, kind in _choices(model, context_length, kv_type, kv_tokens):
        pool = _pool(memory, length, kind, max_sequences, kv_tokens)
        if pool is not None:
            return _made(memory, length, pool, kind, max_sequences)
    raise _refusal(memory, context_length, kv_tokens, kv_type)


def lane_tokens(
    model: ModelInfo,
    chosen: Plan,
    wanted: int,
    least: int,
    *,
    free_bytes: int,
    fraction: float,
    extra_bytes: int,
) -> int:
    """How many tokens one more pool beside the planned one can have.

    Args:
        chosen: the plan of the first.
        extra_bytes: what else comes with it.

    Raises:
        InsufficientMemoryError: not even `least`.
    """
    beside = replace(model, size_bytes=extra_bytes)
    memory = _Memory(beside, free_bytes, int(free_bytes * fraction), chosen.max_batch)
    kv_type = chosen.kv_type
    tokens = min(wanted, memory.largest_pool(kv_type))
    if tokens >= least:
        return tokens
    needed = memory.fixed + memory.kv_bytes(least, kv_type) + memory.scratch(least, kv_type)
    raise InsufficientMemoryError(
        f"LoRA adapters need {_size(needed)} more for a context of their own; {_size(memory.usable)} of "
        f"{_size(free_bytes)} free may be used: load the model with a smaller context_length"
    )


def _check(
    model: ModelInfo, context_length: int | None, max_sequences: int, kv_tokens: int | None, kv_type: str | None
) -> None:
    if kv_type is not None and kv_type not in KV_TYPES:
        raise ParameterError("kv_type", f"{kv_type!r} is not one of {', '.join(KV_TYPES)}")
    _check_count("max_sequences", max_sequences, 64)
    if context_length is not None:
        _check_count("context_length", context_length, max(model.context_length, 2**20))
    if kv_tokens is not None:
        _check_count("kv_tokens", kv_tokens, 2**30)
        if context_length is not None and kv_tokens < context_length:
            raise ParameterError("kv_tokens", f"{kv_tokens} is less than context_length, {context_length}")


def _check_count(name: str, value: object, highest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
        raise ParameterError(name, f"must be a whole number from 1 to {highest}, not {value!r}")


def _choices(
    model: ModelInfo, context_length: int | None, kv_type: str | None, kv_tokens: int | None
) -> Iterator[tuple[int, str]]:
    """Context lengths and KV types to try, the best first."""
    kinds = (kv_type,) if kv_type else tuple(KV_TYPES)
    trained = min(model.context_length or _CONTEXTS[0], _rounded(kv_tokens or _CONTEXTS[0]))
    lengths = (context_length,) if context_length else tuple(dict.fromkeys(min(trained, size) for size in _CONTEXTS))
    for length in lengths:
        for kind in kinds:
            yield length, kind


def _pool(memory: _Memory, length: int, kind: str, max_sequences: int, kv_tokens: int | None) -> int | None:
    """Cells for this choice, None when it does not fit."""
    largest = memory.largest_pool(kind)
    needed = _rounded(kv_tokens or length)
    if needed > largest or (kv_tokens is not None and needed < length):
        return None
    if kv_tokens is not None:
        return needed
    return max(needed, min(largest, max_sequences * needed, max(_DEFAULT_POOL, 2 * needed)))


def _made(memory: _Memory, length: int, pool: int, kind: str, max_sequences: int) -> Plan:
    kv_bytes = memory.kv_bytes(pool, kind)
    store = max(_LEAST_STORE, memory.kv_bytes(length, kind))
    left = max(0, memory.usable - memory.fixed - kv_bytes - memory.scratch(pool, kind))
    beyond = memory.model.context_length and length > memory.model.context_length
    note = f" (trained for {memory.model.context_length:,})" if beyond else ""
    summary = (
        f"{memory.model.name}: context {length:,}{note}, {max_sequences} sequences in {pool:,} tokens of {kind} KV "
        f"({_size(kv_bytes)}), {_size(memory.free)} of memory free"
    )
    store = min(store, left // 2, memory.free // _STORE_SHARE)
    fixed = _fixed_tokens(memory, left - store, length, kind)
    return Plan(length, max_sequences, pool, kind, store, fixed, summary, memory.step_tokens)


def _fixed_tokens(memory: _Memory, left: int, length: int, kind: str) -> int:
    """The reproducible lane is made when it is first asked for, of what the pool and the store leave."""
    fitting = left // (FIXED_WIDTH * max(1, memory.kv_bytes(_MULTIPLE, kind))) * _MULTIPLE
    tokens = min(_rounded(length), _MOST_FIXED, fitting)
    return min(tokens, length) if tokens >= _LEAST_FIXED or tokens >= length else 0


def _refusal(
    memory: _Memory, context_length: int | None, kv_tokens: int | None, kv_type: str | None
) -> InsufficientMemoryError:
    name, kind = memory.model.name, kv_type or "q8_0"
    wanted = kv_tokens or context_length or _CONTEXTS[-1]
    numbers = (
        f"{name} needs {_size(memory.fixed)} and {_size(memory.kv_bytes(wanted, kind))} for {wanted:,} tokens of "
        f"{kind} KV; {_size(memory.usable)} of {_size(memory.free)} free may be used"
    )
    largest = memory.largest_pool(kind)
    asked = {"kv_tokens": kv_tokens or 0, "context_length": context_length or 0}
    too_many = [f"{name}={largest}" for name, tokens in asked.items() if tokens > largest >= _MULTIPLE]
    if too_many:
        return InsufficientMemoryError(f"{numbers}: ask for {' and '.join(too_many)} or less")
    return InsufficientMemoryError(f"{numbers}: close other programs, or choose a smaller model or quantization")


def _rounded(tokens: int) -> int:
    return -(-tokens // _MULTIPLE) * _MULTIPLE


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"
