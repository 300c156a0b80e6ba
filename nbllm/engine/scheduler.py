"""Who is evaluated next: a pure function of what waits, what runs and what room there is.

Nothing here knows a model, a thread or a clock. The lane asks for admissions, carries them out on the KV memory,
then asks for a batch of a size it has measured to be short enough, evaluates it, and comes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nbllm.core import Priority
from nbllm.engine.sequence import Batch, Leader, Sequence, Slice, common_prefix, tables_pause
from nbllm.engine.slots import Slots

_WORTH_WAITING = 16
"""Tokens that following a leader must save over what can be had at once."""
_LOOK_AHEAD = 64
"""Waiting sequences that are looked at when slots are free; more would make a step of a long table slow."""
_MARGIN = 8
"""Cells that stay free, so that one step of every running sequence never fails."""


class Admission(NamedTuple):
    """A sequence that may start, and the running one whose first `length` tokens it shares, if any."""

    sequence: Sequence
    source: Sequence | None
    length: int


class Scheduler:
    """Policy over waiting and running sequences.

    Persons go before tables: a batch sequence never takes the last slot, and gives its own up when a person needs it.
    Sequences that need a prefix which a running one is evaluating wait for it instead of evaluating it again.

    Args:
        slots: the books of the KV memory; only read here.
        max_batch_sequences: slots that batch sequences may take.
        pool_capacity: cells of the KV memory.
        grid: None evaluates in whatever shapes keep the machine busy. A number fixes the shapes: prefill of one
            sequence at a time in slices that end at multiples of it, and decoding apart from prefill.
    """

    def __init__(self, slots: Slots, *, max_batch_sequences: int, pool_capacity: int, grid: int | None = None) -> None:
        self._slots = slots
        self._max_batch = max_batch_sequences
        self._capacity = pool_capacity
        self._grid = grid
        self._waiting: dict[Priority, deque[Sequence]] = {"interactive": deque(), "batch": deque()}
        self._running: list[Sequence] = []
        self._prefill_turn = False

    @property
    def running(self) -> tuple[Sequence, ...]:
        """In order of admission."""
        return tuple(self._running)

    @property
    def num_waiting(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    @property
    def has_work(self) -> bool:
        return bool(self._running) or self.num_waiting > 0

    def add(self, sequence: Sequence) -> None:
        self._waiting[sequence.priority].append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """A running sequence was moved out: it is the next of its kind to come back."""
        self._running.remove(sequence)
        self._waiting[sequence.priority].appendleft(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended, wherever it is."""
        sequence.is_finished = True
        if sequence in self._running:
            self._running.remove(sequence)
        elif sequence in self._waiting[sequence.priority]:
            self._waiting[sequence.priority].remove(sequence)

    # ---- admission

    def next_admission(self) -> Admission | None:
        """The next sequence to start, None when none can. Changes the queues: carry it out before asking again."""
        for sequence in self._candidates():
            admission = self._placed(sequence)
            if admission is not None:
                self._waiting[sequence.priority].remove(sequence)
                self._running.append(sequence)
                sequence.follows = None
                sequence.was_admitted = True
                return admission
        return None

    def next_victim(self) -> Sequence | None:
        """A batch sequence to move out because a person waits for its slot or its cells."""
        waiting = self._waiting["interactive"]
        if not waiting or self._is_following(waiting[0]):
            return None
        if self._slots.num_free and self._fits(waiting[0], 0):
            return None
        return self._youngest_batch()

    def _candidates(self) -> Iterator[Sequence]:
        if not self._slots.num_free:
            return
        yield from list(self._waiting["interactive"])[:_LOOK_AHEAD]
        num_batch = sum(sequence.priority == "batch" for sequence in self._running)
        if num_batch < self._max_batch and not any(not self._is_following(s) for s in self._waiting["interactive"]):
            queue = self._waiting["batch"]
            yield from [queue[index] for index in range(min(_LOOK_AHEAD, len(queue)))]

    def _placed(self, sequence: Sequence) -> Admission | None:
        if self._is_following(sequence):
            return None
        source, ready, coming = self._best_source(sequence)
        if coming is not None and coming.length > max(ready, sequence.num_cached) + _WORTH_WAITING:
            sequence.follows = coming
            return None
        if not self._fits(sequence, ready):
            return None
        return Admission(sequence, source, ready)

    def _is_following(self, sequence: Sequence) -> bool:
        leader = sequence.follows
        if leader is None:
            return False
        if leader.sequence.slot is None or leader.sequence.num_evaluated >= leader.length:
            sequence.follows = None
            return False
        return True

    def _best_source(self, sequence: Sequence) -> tuple[Sequence | None, int, Leader | None]:
        """The running sequence that shares most evaluated tokens, how many, and one that will share more."""
        if not sequence.reuses or sequence.was_admitted:
            return None, 0, None
        source, ready, coming = None, 0, None
        for other in self._running:
            if not other.reuses:
                continue
            shared = self.usable(common_prefix(sequence.tokens, other.tokens), sequence)
            if self._grid is not None:
                shared = min(shared, self.usable(other.num_prompt, other))
            evaluated = self.usable(min(shared, other.num_evaluated), sequence)
            if evaluated > ready:
                source, ready = other, evaluated
            if shared > other.num_evaluated and (coming is None or shared > coming.length):
                coming = Leader(other, shared)
        return source, ready, coming

    def usable(self, length: int, sequence: Sequence) -> int:
        """How much of a shared prefix `sequence` may take: never its wanted outputs, and whole grid steps only."""
        length = min(length, sequence.outputs_from)
        return length if self._grid is None else length - length % self._grid

    def _fits(self, sequence: Sequence, shared: int) -> bool:
        """Whether its prompt fits beside what runs and what that still has to evaluate."""
        coming = sum(other.num_coming for other in self._running) + sequence.num_coming
        return self._slots.cells + coming - shared + _MARGIN <= self._capacity or not self._running

    # ---- the next step

    @property
    def decoding(self) -> list[Sequence]:
        """The running sequences that a step takes on by what they generated last.

        A table's rows pause while `tables_pause` says so, but on a grid, where decoding has steps of its own.
        """
        decoding = [sequence for sequence in self._running if sequence.num_pending and not sequence.is_prefilling]
        if self._grid is None and tables_pause(self._running):
            return [sequence for sequence in decoding if sequence.priority == "interactive"]
        return decoding

    def overflowing(self) -> Sequence | None:
        """Whom to move out so that every decoding sequence can go on; None when all can, or when only one runs."""
        coming = sum(sequence.num_pending for sequence in self.decoding)
        if self._slots.cells + coming <= self._capacity or len(self._running) < 2:
            return None
        return self._youngest_batch() or self._running[-1]

    def any_to_move(self) -> Sequence | None:
        """Whom to move out when the memory says it is full."""
        return (self._youngest_batch() or self._running[-1]) if len(self._running) > 1 else None

    def _youngest_batch(self) -> Sequence | None:
        return next((sequence for sequence in reversed(self._running) if sequence.priority == "batch"), None)

    def schedule(self, budget: int, max_tokens: int) -> Batch:
        """The next batch: every decoding sequence, then prefill up to `budget` tokens, persons first.

        Args:
            budget: prefill tokens that keep the step short.
            max_tokens: what a batch can hold at all.
        """
        decoding = self.decoding
        prefilling = sorted(
            (sequence for sequence in self._running if sequence.is_prefilling),
            key=lambda sequence: sequence.priority == "batch",
        )
        if self._grid is not None:
            return self._fixed_shape(decoding, prefilling)
        slices = list(_sliced(decoding, max_tokens))
        room = max_tokens - sum(part.stop - part.start for part in slices)
        slices += _sliced(prefilling, min(budget, room))
        return Batch(tuple(slices))

    def _fixed_shape(self, decoding: list[Sequence], prefilling: list[Sequence]) -> Batch:
        """Prefill and decoding take turns, so that the shape of neither depends on the other."""
        grid = self._grid or 1
        self._prefill_turn = bool(prefilling) and (not decoding or not self._prefill_turn)
        if self._prefill_turn:
            first = prefilling[0]
            stop = min(len(first.tokens), (first.num_evaluated // grid + 1) * grid)
            return Batch((Slice(first, first.num_evaluated, stop),))
        return Batch(
            tuple(Slice(sequence, sequence.num_evaluated, sequence.num_evaluated + 1) for sequence in decoding)
        )


def _sliced(sequences: Iterable[Sequence], budget: int) -> Iterator[Slice]:
    for sequence in sequences:
        if budget <= 0:
            return
        count = min(sequence.num_pending, budget)
        yield Slice(sequence, sequence.num_evaluated, sequence.num_evaluated + count)
        budget -= count
