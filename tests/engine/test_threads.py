"""The tuner against a simulated machine: time here is the sum of simulated steps, not a real one's."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.engine.threads import ThreadTuner

Busy = Callable[[float], int]
"""How many cores other programs keep busy, at a time."""

SWITCH_S = 0.0015
CLIFF = 2.6


@dataclass
class Machine:
    """Step durations as they were measured on two cores (in milliseconds: 9.5, 14.3; beside a busy loop 25, 16.7),
    and for larger machines a part of the step that does not get faster with more threads."""

    cores: int
    busy: Busy
    jitter: float = 0.08
    outliers: float = 0.05
    growth: float = 0.0003
    now_s: float = 0.0
    steps: int = 0
    last_threads: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def step(self, threads: int, tokens: int = 1) -> float:
        duration_s = self.quiet_step_s(threads, self.busy(self.now_s)) * (1 + 0.4 * (tokens - 1))
        duration_s *= 1 + self.growth * min(self.steps, 3000)
        duration_s *= max(0.7, self.rng.gauss(1, self.jitter)) * (3 if self.rng.random() < self.outliers else 1)
        duration_s += SWITCH_S * (threads != self.last_threads)
        self.last_threads = threads
        self.now_s += duration_s
        self.steps += 1
        return duration_s

    def quiet_step_s(self, threads: int, busy: int) -> float:
        if self.cores == 2:
            return {(1, 0): 0.0143, (2, 0): 0.0095, (1, 1): 0.0167, (2, 1): 0.025}[threads, busy]
        work_s = 0.004 + 0.040 / threads
        return work_s * (CLIFF if threads > self.cores - busy else 1)


def run(machine: Machine, seconds: float, tuner: ThreadTuner) -> list[int]:
    counts = []
    end_s = machine.now_s + seconds
    while machine.now_s < end_s:
        counts.append(tuner.threads)
        tuner.observe(tuner.threads, 1, machine.step(tuner.threads))
    return counts


def steps_of_best(machine: Machine, seconds: float) -> int:
    """Steps by somebody who always knows which count is the best at the moment."""
    while machine.now_s < seconds:
        busy = machine.busy(machine.now_s)
        machine.step(min(range(1, machine.cores + 1), key=lambda threads: machine.quiet_step_s(threads, busy)))
    return machine.steps


def share_of_best(seconds: float, seed: int, *, cores: int = 2, busy: Busy, **noise: float) -> float:
    tuned = Machine(cores, busy, rng=random.Random(seed), **noise)  # type: ignore[arg-type]  # floats by name
    best = Machine(cores, busy, rng=random.Random(seed), **noise)  # type: ignore[arg-type]
    return len(run(tuned, seconds, ThreadTuner(cores))) / steps_of_best(best, seconds)


def alone(now_s: float) -> int:
    return 0


def beside_one(now_s: float) -> int:
    return 1


def beside_three(now_s: float) -> int:
    return 3


def now_and_then(now_s: float) -> int:
    return int(now_s / 10) % 2


HEAVY = {"jitter": 0.2, "outliers": 0.15}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("cores", "busy", "seconds", "bar", "noise"),
    [
        pytest.param(2, alone, 20, 0.97, {}, id="alone"),
        pytest.param(2, alone, 20, 0.95, HEAVY, id="alone-heavy-noise"),
        pytest.param(2, beside_one, 20, 0.92, {}, id="beside-busy"),
        pytest.param(2, beside_one, 20, 0.92, HEAVY, id="beside-busy-heavy-noise"),
        pytest.param(2, now_and_then, 60, 0.90, {}, id="busy-comes-and-goes"),
        pytest.param(8, alone, 20, 0.97, {}, id="eight-alone"),
        pytest.param(8, beside_three, 20, 0.90, {}, id="eight-three-taken"),
        pytest.param(3, beside_one, 20, 0.92, {}, id="three-one-taken"),
        pytest.param(64, beside_one, 20, 0.88, {}, id="many-cores"),
        pytest.param(2, alone, 20, 0.97, {"growth": 0.001}, id="alone-growing-context"),
    ],
)
def test_tuner_keeps_most_of_the_best_speed(
    cores: int, busy: Busy, seconds: float, bar: float, noise: dict[str, float], seed: int
) -> None:
    assert share_of_best(seconds, seed, cores=cores, busy=busy, **noise) >= bar


def test_tuner_returns_to_all_cores_when_they_are_free_again() -> None:
    machine = Machine(2, lambda now_s: int(now_s < 20))
    tuner = ThreadTuner(2)
    assert run(machine, 20, tuner)[-1] == 1
    run(machine, 4, tuner)
    assert run(machine, 1, tuner).count(2) > 0.9 * len(run(machine, 1, tuner))


def test_tuner_returns_to_a_part_of_the_cores() -> None:
    machine = Machine(8, lambda now_s: 5 if now_s < 10 else 2)
    tuner = ThreadTuner(8)
    assert median_of(run(machine, 10, tuner)[-50:]) == 3
    run(machine, 10, tuner)
    assert median_of(run(machine, 5, tuner)) == 6


def median_of(counts: list[int]) -> int:
    return sorted(counts)[len(counts) // 2]


def test_tuner_that_begins_with_few_cores_has_all_soon_when_they_were_busy_for_a_moment_only() -> None:
    machine, tuner = Machine(8, alone), ThreadTuner(8)
    tuner.begin(1)
    assert run(machine, 0.2, tuner)[:3] == [1, 1, 1]
    run(machine, 1.3, tuner)
    assert median_of(run(machine, 1, tuner)) == 8


@pytest.mark.parametrize("free", [8, 9])
def test_tuner_that_begins_with_all_cores_keeps_what_it_learned(free: int) -> None:
    machine, tuner = Machine(8, beside_three), ThreadTuner(8)
    settled = median_of(run(machine, 10, tuner)[-50:])
    tuner.begin(free)
    assert tuner.settled == settled == 5


def test_tuner_leaves_slow_steps_soon_after_they_begin() -> None:
    machine = Machine(2, lambda now_s: int(now_s >= 30))
    tuner = ThreadTuner(2)
    run(machine, 30, tuner)
    run(machine, 1.0, tuner)  # the last probe may have ended just before
    assert run(machine, 1.0, tuner).count(1) > 20


def test_tuner_with_one_core_never_changes() -> None:
    tuner = ThreadTuner(1)
    rng = random.Random(3)
    for _ in range(2000):
        assert tuner.threads == 1
        tuner.observe(1, 1, rng.choice([0.01, 0.03, 0.1]))


def test_tuner_does_not_change_the_count_on_every_step() -> None:
    counts = run(Machine(2, beside_one, jitter=0.2, outliers=0.15), 20, ThreadTuner(2))
    changes = sum(before != after for before, after in itertools.pairwise(counts))
    assert changes < len(counts) / 20


def test_tuner_takes_a_longer_context_for_normal() -> None:
    tuner = ThreadTuner(2)
    run(Machine(2, alone, growth=0.0), 5, tuner)
    grown = Machine(2, lambda now_s: 0, growth=0.0)
    factor = 3.0  # another sequence of the same shape, with a long context
    fewer = 0
    for _ in range(1000):
        fewer += tuner.threads == 1
        tuner.observe(tuner.threads, 1, factor * grown.step(tuner.threads))
    assert fewer < 40


def test_tuner_with_changing_shapes_learns_too() -> None:
    machine, tuner = Machine(2, beside_one), ThreadTuner(2)
    counts = []
    for number in range(1500):
        tokens = 1 + number // 7 % 4
        counts.append(tuner.threads)
        tuner.observe(tuner.threads, tokens, machine.step(tuner.threads, tokens))
    assert counts[500:].count(1) > 900


def test_limit_below_the_count_takes_effect_at_once() -> None:
    tuner = ThreadTuner(8)
    run(Machine(8, alone), 3, tuner)
    tuner.limit(3)
    assert tuner.threads <= 3
    tuner.limit(8)
    assert tuner.threads == 8


def test_limit_that_grows_keeps_a_count_that_was_found_better() -> None:
    machine, tuner = Machine(2, beside_one), ThreadTuner(2)
    run(machine, 5, tuner)
    tuner.limit(1)
    assert tuner.threads == 1
    other = ThreadTuner(8)
    run(Machine(8, lambda now_s: 5), 5, other)
    other.limit(9)
    assert other.threads < 8


def test_limit_during_a_trial_ends_it() -> None:
    tuner = ThreadTuner(4)
    while tuner.threads == 4:
        tuner.observe(4, 1, 0.01)
    tuner.limit(1)
    assert tuner.threads == 1


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_observe_ignores_impossible_durations(duration_s: float) -> None:
    tuner = ThreadTuner(2)
    for _ in range(100):
        tuner.observe(2, 1, duration_s)
    assert tuner.threads == 2


def test_observe_ignores_steps_with_another_count() -> None:
    tuner = ThreadTuner(4)
    for _ in range(100):
        tuner.observe(1, 1, 0.01)
    assert tuner.threads == 4


def test_observe_keeps_a_bounded_number_of_shapes() -> None:
    tuner = ThreadTuner(2)
    for number in range(5000):
        tuner.observe(2, number, 0.01)
    assert max(len(tuner._recent), len(tuner._normal)) <= 64


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("limit"), st.integers(-1, 20)),
            st.tuples(st.just("steps"), st.floats(0.001, 2.0), st.integers(1, 3), st.integers(1, 30)),
        ),
        max_size=60,
    )
)
def test_threads_stay_within_the_limit(events: list[tuple[object, ...]]) -> None:
    tuner, limit = ThreadTuner(4), 4
    for event in events:
        match event:
            case ("limit", int(cores)):
                tuner.limit(cores)
                limit = max(1, cores)
            case (_, float(duration_s), shape, int(steps)):
                for _ in range(steps):
                    tuner.observe(tuner.threads, shape, duration_s)
                    assert 1 <= tuner.threads <= limit
        assert 1 <= tuner.threads <= limit
