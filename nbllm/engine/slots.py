"""Which sequence is in which slot of the KV memory, and how many cells of the pool that takes.

A prefix that was forked is stored once. So a slot holds a list of runs, a run is a stretch of cells that one or more
slots share from their start, and the pool holds every run once.
"""

from __future__ import annotations

from collections.abc import Iterator

from nbllm.engine.sequence import Sequence


class _Run:
    """A stretch of cells; slots that share it hold the same object."""

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length


class Slots:
    """The slots of one KV memory.

    Args:
        num_slots: how many there are.
        shared: whether forks share cells (one unified pool) or copy them (a stream a slot).
    """

    def __init__(self, num_slots: int, *, shared: bool = True) -> None:
        self._shared = shared
        self._free = list(range(num_slots - 1, -1, -1))
        self._holders: dict[int, Sequence] = {}
        self._runs: dict[int, list[_Run]] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def cells(self) -> int:
        """Cells that the pool holds."""
        return sum(run.length for run in {id(run): run for runs in list(self._runs.values()) for run in runs}.values())

    def holders(self) -> Iterator[Sequence]:
        return iter(self._holders.values())

    def take(self, sequence: Sequence) -> int:
        """Give the sequence an empty slot. Changes the sequence's slot."""
        slot = self._free.pop()
        self._holders[slot] = sequence
        self._runs[slot] = []
        sequence.slot = slot
        return slot

    def release(self, sequence: Sequence) -> None:
        """Take the sequence out of its slot. Changes the sequence's slot and forgets what was evaluated."""
        slot = _slot_of(sequence)
        del self._holders[slot], self._runs[slot]
        self._free.append(slot)
        sequence.slot = None
        sequence.num_evaluated = 0

    def fork(self, source: Sequence, target: Sequence, length: int) -> None:
        """Let `target`, empty so far, share the first `length` cells of `source`."""
        if self._shared:
            self._runs[_slot_of(target)] = self._split(_slot_of(source), length)
            target.num_evaluated = length
        else:
            self.extend(target, length)

    def extend(self, sequence: Sequence, count: int) -> None:
        """Note `count` more evaluated tokens, in cells of the sequence's own."""
        sequence.num_evaluated += count
        runs = self._runs[_slot_of(sequence)]
        if runs and self._num_holders(runs[-1]) == 1:
            runs[-1].length += count
        elif count:
            runs.append(_Run(count))

    def cut(self, sequence: Sequence, length: int) -> None:
        """Keep the first `length` evaluated tokens."""
        slot = _slot_of(sequence)
        self._runs[slot] = self._split(slot, length)
        sequence.num_evaluated = length

    def _num_holders(self, run: _Run) -> int:
        return sum(any(held is run for held in runs) for runs in self._runs.values())

    def _split(self, slot: int, length: int) -> list[_Run]:
        """The runs of the first `length` cells of a slot; a run across the border becomes two for everyone."""
        kept: list[_Run] = []
        for run in list(self._runs[slot]):
            if length <= 0:
                break
            if run.length > length:
                self._break(run, length)
            kept.append(run)
            length -= run.length
        return kept

    def _break(self, run: _Run, length: int) -> None:
        rest = _Run(run.length - length)
        run.length = length
        for runs in self._runs.values():
            for index, held in enumerate(runs):
                if held is run:
                    runs.insert(index + 1, rest)
                    break

    def check_integrity(self) -> None:
        """Raise AssertionError when the books do not add up."""
        taken = set(self._holders)
        assert taken == set(self._runs), "a slot without books"
        assert not taken & set(self._free), "a slot both free and taken"
        assert len(set(self._free)) == len(self._free), "a slot that is free twice"
        for slot, sequence in self._holders.items():
            assert sequence.slot == slot, "a sequence that does not know its slot"
            assert sum(run.length for run in self._runs[slot]) == sequence.num_evaluated, "cells that nobody evaluated"
            assert all(run.length > 0 for run in self._runs[slot]), "an empty run"
            assert sequence.num_evaluated <= len(sequence.tokens), "more cells than tokens"


def _slot_of(sequence: Sequence) -> int:
    if sequence.slot is None:
        raise RuntimeError("the sequence has no slot")
    return sequence.slot
