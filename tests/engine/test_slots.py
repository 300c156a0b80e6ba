"""The books of the KV memory against a model that writes every cell down."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbllm.engine.sequence import Sequence
from nbllm.engine.slots import Slots

_NUM_SLOTS = 4
_picks = st.integers(0, 10**6)


class _Cells(RuleBasedStateMachine):
    """Every slot is a list of cell names; a fork shares the names."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(_NUM_SLOTS, shared=self.shared)
        self.names = itertools.count()
        self.held: dict[Sequence, list[int]] = {}

    def _pick(self, pick: int) -> Sequence:
        return list(self.held)[pick % len(self.held)]

    @precondition(lambda self: len(self.held) < _NUM_SLOTS)
    @rule()
    def take(self) -> None:
        sequence = Sequence(0, [0] * 1000, 1000)
        self.slots.take(sequence)
        self.held[sequence] = []

    @precondition(lambda self: self.held)
    @rule(pick=_picks)
    def release(self, pick: int) -> None:
        sequence = self._pick(pick)
        self.slots.release(sequence)
        del self.held[sequence]
        assert sequence.slot is None
        assert sequence.num_evaluated == 0

    @precondition(lambda self: self.held)
    @rule(pick=_picks, count=st.integers(0, 9))
    def extend(self, pick: int, count: int) -> None:
        sequence = self._pick(pick)
        self.slots.extend(sequence, count)
        self.held[sequence] += itertools.islice(self.names, count)

    @precondition(lambda self: self.held)
    @rule(pick=_picks, keep=_picks)
    def cut(self, pick: int, keep: int) -> None:
        sequence = self._pick(pick)
        length = keep % (len(self.held[sequence]) + 1)
        self.slots.cut(sequence, length)
        self.held[sequence] = self.held[sequence][:length]

    @precondition(lambda self: self.held and len(self.held) < _NUM_SLOTS)
    @rule(pick=_picks, keep=_picks)
    def fork(self, pick: int, keep: int) -> None:
        source = self._pick(pick)
        length = keep % (len(self.held[source]) + 1)
        if not length:
            return
        self.take()
        target = list(self.held)[-1]
        self.slots.fork(source, target, length)
        shared = self.held[source][:length]
        self.held[target] = list(shared) if self.shared else list(itertools.islice(self.names, length))

    @invariant()
    def books_agree(self) -> None:
        self.slots.check_integrity()
        assert self.slots.cells == len({name for names in self.held.values() for name in names})
        assert self.slots.num_free == _NUM_SLOTS - len(self.held)
        assert set(self.slots.holders()) == set(self.held)
        for sequence, names in self.held.items():
            assert sequence.num_evaluated == len(names)


class _Copies(_Cells):
    """A stream a slot: a fork costs cells of its own."""

    shared = False


_few = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSharedCells = _Cells.TestCase
TestSharedCells.settings = _few
TestCopiedCells = _Copies.TestCase
TestCopiedCells.settings = _few


def test_integrity_notices_a_wrong_count() -> None:
    slots, sequence = Slots(1), Sequence(0, [1, 2, 3], 3)
    slots.take(sequence)
    slots.extend(sequence, 2)
    sequence.num_evaluated = 3
    with pytest.raises(AssertionError, match="nobody evaluated"):
        slots.check_integrity()


def test_integrity_notices_a_sequence_in_a_wrong_slot() -> None:
    slots, sequence = Slots(2), Sequence(0, [1], 1)
    slots.take(sequence)
    sequence.slot = 1
    with pytest.raises(AssertionError, match="does not know its slot"):
        slots.check_integrity()


def test_release_without_a_slot_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no slot"):
        Slots(1).release(Sequence(0, [1], 1))
