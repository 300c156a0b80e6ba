"""What a lane's KV memory holds: which sequence is where, what moved out for a while, and prefixes of those that left.

Slots, context and store change together here and nowhere else, so that the books say what the memory holds.
"""

from __future__ import annotations

from collections.abc import Callable

from nbllm.engine.backend import Context
from nbllm.engine.prefixes import PrefixStore
from nbllm.engine.scheduler import Admission
from nbllm.engine.sequence import Sequence
from nbllm.engine.slots import Slots

_SHORTEST_STORED = 16
"""Tokens: evaluating fewer again costs less than keeping them."""


class Residents:
    """Moves sequences in and out of one KV memory. For the engine's thread alone.

    Args:
        slots: the books, which nobody else changes.
        usable: how much of a shared prefix a sequence may take.
        store_bytes: host memory for idle prefixes.
        grid: prefixes are kept in whole multiples of it, of prompts alone; None keeps all that was evaluated.
    """

    def __init__(
        self,
        context: Context,
        slots: Slots,
        usable: Callable[[int, Sequence], int],
        *,
        store_bytes: int,
        grid: int | None,
    ) -> None:
        self._context, self._slots, self._usable, self._grid = context, slots, usable, grid
        self._store = PrefixStore(store_bytes)
        self._parked: dict[Sequence, tuple[bytes, int]] = {}

    @property
    def stored_bytes(self) -> int:
        """Bytes of idle prefixes."""
        return self._store.num_bytes

    def move_in(self, admission: Admission) -> None:
        """Give an admitted sequence a slot, and the longest evaluated prefix that can be had."""
        sequence = admission.sequence
        slot = self._slots.take(sequence)
        parked = self._parked.pop(sequence, None)
        if parked is not None:
            state, length = parked
            if self._context.restore(slot, state, length):
                self._slots.extend(sequence, length)
            return
        if sequence.reuses:
            self._reuse(admission, slot)
        sequence.num_cached = sequence.num_evaluated

    def _reuse(self, admission: Admission, slot: int) -> None:
        sequence, source, length = admission
        entry, shared = self._store.longest(sequence.tokens)
        stored = self._usable(shared, sequence)
        if entry is not None and stored > length and self._context.restore(slot, entry.state, stored):
            self._store.touch(entry)
            self._slots.extend(sequence, stored)
        elif (
            source is not None and source.slot is not None and length and self._context.fork(source.slot, slot, length)
        ):
            self._slots.fork(source, sequence, length)

    def move_out(self, sequence: Sequence) -> None:
        """Move a sequence to host memory, for `move_in` to bring back."""
        if sequence.slot is None:
            return
        if sequence.num_evaluated:
            self._parked[sequence] = (self._context.save(sequence.slot), sequence.num_evaluated)
        self._context.forget(sequence.slot)
        self._slots.release(sequence)

    def leave(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended, wherever it is, all but its prefix."""
        self._parked.pop(sequence, None)
        if sequence.slot is not None:
            self._keep_prefix(sequence)
            self._context.forget(sequence.slot)
            self._slots.release(sequence)

    def recover(self, sequence: Sequence) -> None:
        """Cut a slot back to what its books say; a memory that cannot be cut starts from nothing."""
        if sequence.slot is not None and not self._context.cut(sequence.slot, sequence.num_evaluated):
            self._slots.cut(sequence, 0)

    def clear(self) -> None:
        """Forget all, without touching the context."""
        for sequence in list(self._slots.holders()):
            self._slots.release(sequence)
        self._parked.clear()
        self._store.clear()

    def _keep_prefix(self, sequence: Sequence) -> None:
        """Store what an ended sequence evaluated, as far as another may reuse it."""
        length = sequence.num_evaluated
        if self._grid is not None:  # what was decoded has another shape than what the next prompt prefills
            length = min(length, sequence.num_prompt)
            length -= length % self._grid
        if not sequence.reuses or length < _SHORTEST_STORED or sequence.slot is None:
            return
        tokens = sequence.tokens[:length]
        _, known = self._store.longest(tokens)
        if known == length or (sequence.priority == "batch" and 2 * known >= sequence.num_prompt):
            return  # of a table's rows only the common instruction is wanted again, and a thousand would fill the store
        if length == sequence.num_evaluated or self._context.cut(sequence.slot, length):
            self._store.put(tokens, self._context.save(sequence.slot))
