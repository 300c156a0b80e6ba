"""The policy alone: who is admitted, who waits for whom, what a step holds."""

from __future__ import annotations

import itertools

from nbllm.core import Priority
from nbllm.engine.scheduler import Admission, Scheduler
from nbllm.engine.sequence import Sequence
from nbllm.engine.slots import Slots


class _Table:
    """A scheduler, its books, and sequences that are evaluated by saying so."""

    def __init__(self, num_slots: int = 4, max_batch: int = 3, capacity: int = 1000, grid: int | None = None) -> None:
        self.slots = Slots(num_slots)
        self.scheduler = Scheduler(self.slots, max_batch_sequences=max_batch, pool_capacity=capacity, grid=grid)
        self._uids = itertools.count()

    def add(self, tokens: list[int], priority: Priority = "interactive", *, reuses: bool = True) -> Sequence:
        uid, last = next(self._uids), len(tokens) - 1
        sequence = Sequence(uid, tokens, len(tokens), priority=priority, outputs_from=last, reuses=reuses)
        self.scheduler.add(sequence)
        return sequence

    def admit(self) -> list[Admission]:
        admissions = []
        while (admission := self.scheduler.next_admission()) is not None:
            self.slots.take(admission.sequence)
            if admission.source is not None and admission.length:
                self.slots.fork(admission.source, admission.sequence, admission.length)
            admissions.append(admission)
        return admissions

    def step(self, budget: int = 64, most: int = 512) -> list[tuple[int, int, int]]:
        batch = self.scheduler.schedule(budget, most)
        for part in batch.slices:
            self.slots.extend(part.sequence, part.stop - part.start)
        return [(part.sequence.uid, part.start, part.stop) for part in batch.slices]


def test_batch_work_never_takes_the_last_slot() -> None:
    table = _Table(num_slots=4, max_batch=3)
    for number in range(6):
        table.add([number], "batch")
    assert len(table.admit()) == 3
    person = table.add([9])
    assert [admission.sequence for admission in table.admit()] == [person]


def test_person_goes_before_a_table_that_came_earlier() -> None:
    table = _Table(num_slots=2, max_batch=1)
    row, person = table.add([1], "batch"), table.add([2])
    assert [admission.sequence for admission in table.admit()] == [person, row]


def test_youngest_row_gives_its_slot_to_a_person() -> None:
    table = _Table(num_slots=2, max_batch=2)
    _, young = table.add([1], "batch"), table.add([2], "batch")
    table.admit()
    assert table.scheduler.next_victim() is None
    table.add([3])
    assert table.scheduler.next_victim() is young


def test_person_never_gives_a_slot_to_a_person() -> None:
    table = _Table(num_slots=1, max_batch=1)
    table.add([1])
    table.admit()
    table.add([2])
    assert table.scheduler.next_victim() is None


def test_moved_out_sequence_comes_back_first() -> None:
    table = _Table(num_slots=2, max_batch=1)
    first, second = table.add([1], "batch"), table.add([2], "batch")
    table.admit()
    table.slots.release(first)
    table.scheduler.put_back(first)
    assert [admission.sequence for admission in table.admit()] == [first]
    assert second in table.scheduler._waiting["batch"]


def test_followers_wait_for_the_leader_and_then_share() -> None:
    table = _Table()
    prefix = list(range(100))
    leader, follower = table.add([*prefix, 1]), table.add([*prefix, 2])
    assert [admission.sequence for admission in table.admit()] == [leader]
    assert table.step(64) == [(0, 0, 64)]
    assert table.admit() == []
    table.step(64)
    assert table.admit() == [Admission(follower, leader, 100)]
    assert table.step(64) == [(1, 100, 101)]
    assert table.slots.cells == 102


def test_follower_goes_on_alone_when_its_leader_is_gone() -> None:
    table = _Table()
    prefix = list(range(100))
    leader, follower = table.add([*prefix, 1]), table.add([*prefix, 2])
    table.admit()
    table.step(64)
    assert table.admit() == []
    table.slots.release(leader)
    table.scheduler.remove(leader)
    assert table.admit() == [Admission(follower, None, 0)]


def test_short_common_prefix_is_not_worth_waiting_for() -> None:
    table = _Table()
    table.add([*range(10), 1])
    table.add([*range(10), 2])
    assert len(table.admit()) == 2


def test_sequence_that_does_not_reuse_shares_nothing() -> None:
    table = _Table()
    table.add(list(range(100)))
    table.add(list(range(100)), reuses=False)
    assert [admission.length for admission in table.admit()] == [0, 0]


def test_wanted_outputs_are_never_taken_from_a_shared_prefix() -> None:
    table = _Table()
    leader = table.add(list(range(40)))
    table.admit()
    table.step()
    table.add(list(range(40)))
    assert [(admission.source, admission.length) for admission in table.admit()] == [(leader, 39)]


def test_prompt_that_does_not_fit_into_the_pool_waits() -> None:
    table = _Table(capacity=100)
    table.add([1] * 60)
    big = table.add([2] * 60)
    assert len(table.admit()) == 1
    assert table.scheduler.num_waiting == 1
    first = table.scheduler.running[0]
    table.slots.release(first)
    table.scheduler.remove(first)
    assert [admission.sequence for admission in table.admit()] == [big]


def test_lone_prompt_is_always_admitted() -> None:
    table = _Table(capacity=50)
    table.add([1] * 50)
    assert len(table.admit()) == 1


def test_step_holds_every_decoding_sequence_and_then_prefill_within_the_budget() -> None:
    table = _Table()
    decoding, prefilling = table.add([1, 2]), table.add([3] * 50)
    table.admit()
    table.step(2)
    decoding.tokens.append(7)
    assert table.step(10) == [(0, 2, 3), (1, 0, 10)]
    assert prefilling.num_evaluated == 10


def test_persons_prefill_goes_before_a_tables() -> None:
    table = _Table()
    row, person = table.add([1] * 50, "batch"), table.add([2] * 50)
    table.admit()
    assert [uid for uid, _, _ in table.step(20)] == [person.uid]
    assert row.num_evaluated == 0


def test_rows_pause_while_a_persons_prompt_is_evaluated_and_then_go_on() -> None:
    table = _Table(num_slots=4)
    row, talking = table.add([1], "batch"), table.add([2])
    table.admit()
    table.step()
    for sequence in (row, talking):
        sequence.tokens.append(3)
    person = table.add(list(range(10, 30)))
    table.admit()
    assert table.step(budget=16) == [(talking.uid, 1, 2), (person.uid, 0, 16)]
    talking.tokens.append(4)
    assert table.step(budget=16) == [(talking.uid, 2, 3), (person.uid, 16, 20)]
    assert table.step() == [(row.uid, 1, 2)]


def test_step_is_never_larger_than_a_batch() -> None:
    table = _Table(num_slots=4)
    for number in range(3):
        table.add([number])
    table.admit()
    table.step()
    for sequence in table.scheduler.running:
        sequence.tokens += [5] * 16
    sizes = [stop - start for _, start, stop in table.step(64, 40)]
    assert sum(sizes) == 40
    assert sum(stop - start for _, start, stop in table.step(64, 40)) == 8


def test_overflow_moves_out_rows_before_persons() -> None:
    table = _Table(capacity=100)
    person, row = table.add([1] * 40), table.add([2] * 40, "batch")
    table.admit()
    table.step(80)
    person.tokens += [5] * 10
    row.tokens += [5] * 10
    assert table.scheduler.overflowing() is None
    row.tokens.append(5)
    assert table.scheduler.overflowing() is row
    table.slots.release(row)
    table.scheduler.remove(row)
    person.tokens += [5] * 5
    assert table.scheduler.overflowing() is None, "the only one is never moved out"
    assert table.scheduler.running == (person,)


def test_fixed_shapes_prefill_one_sequence_up_to_the_grid_and_take_turns() -> None:
    table = _Table(grid=32)
    first, _ = table.add([1] * 20), table.add([2] * 70)
    table.admit()
    assert table.step() == [(0, 0, 20)]
    first.tokens.append(9)
    assert table.step() == [(0, 20, 21)]
    first.tokens.append(9)
    assert table.step() == [(1, 0, 32)]
    assert table.step() == [(0, 21, 22)]
    assert table.step() == [(1, 32, 64)]


def test_fixed_shapes_share_whole_grid_steps_only() -> None:
    table = _Table(grid=32)
    leader = table.add([*range(100)])
    table.admit()
    for _ in range(4):
        table.step()
    table.add([*range(90), 500, 501])
    assert [(admission.source, admission.length) for admission in table.admit()] == [(leader, 64)]
