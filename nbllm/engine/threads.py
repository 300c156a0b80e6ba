"""How many of the granted cores to decode with, learned from how long the steps take.

A core that something else keeps busy (a browser painting, a compile) makes every barrier of a step wait for it, so that
fewer threads are faster. Which count is best shows only by trying. Pure policy: no clock, no input or output; time is
the sum of the durations that were observed.

The speed rises with the count up to the number of free cores, falls off a cliff above it, and may rise again beyond.
So a search after a slowdown goes down a ladder of counts until one helps, further down for as long as that helps more,
and then closes in on the cliff from below.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

WINDOW_STEPS = 9
"""Steps of one shape whose median is taken for its duration: four outliers among them do not move it much."""
BASELINE_STEPS = 5
"""Steps at the settled count before anything is compared with it."""
TRIAL_STEPS = 8
HOPELESS_STEPS = 3
"""Steps after which a trial whose fastest step is slower than the baseline is given up; one less when much slower."""
HOPELESS_GROWTH = 2.5
"""A count whose fastest step is slower than the baseline by this factor rules out lower ones: no cliff is higher."""
MAX_TRIAL_STEPS = 24
"""Length of a trial in which no shape came often enough to be judged."""
CLEAR_GROWTH = 1.15
"""A count whose fastest step is slower than the baseline by this factor need not be tried again soon."""

GAIN = 0.94
"""A count is better if its steps take less than this part of the other's; noise must not pass for a gain."""
SLOWDOWN = 1.3
"""Growth of a step's duration that starts a search for a lower count."""
DRIFT = 1.0005
"""Growth a step that counts as normal: attention takes longer as the context grows."""

FIRST_PATIENCE_S = 0.6
MAX_PATIENCE_S = 15.0
"""Longest time between two cheap tries of fewer threads while nothing is wrong."""
LEAST_REST, MOST_REST = 50, 100
"""Rest after a try in vain, in multiples of what it cost: eight sequences' steps may lose half a second to one."""
MAX_LOWERED_PATIENCE_S = 2.5
"""Longest time between two tries of more threads, and so the delay until freed cores are used again."""

_K = TypeVar("_K")
_V = TypeVar("_V")
_MAX_SHAPES = 64
_MAX_STEP_S = 1.0  # a longer step was a suspended machine


class ThreadTuner:
    """Proposes the number of decode threads, from 1 to the limit.

    Ask `threads` before a step, and pass what the step was run with to `observe`. The proposal changes for at least
    four steps at a time.

    Args:
        max_threads: the cores that are granted at first.
    """

    def __init__(self, max_threads: int) -> None:
        self._limit = max(1, max_threads)
        self._settled = self._limit
        self._recent: dict[Hashable, deque[float]] = {}  # at the settled count, since the last trial
        self._normal: dict[tuple[Hashable, int], float] = {}
        self._trial: _Trial | None = None
        self._searching = False
        self._helped = False  # while searching: a count was found better
        self._descent: list[int] = []  # while searching: lower counts to try, highest first
        self._ceiling = self._limit + 1  # counts from here up are known to be worse, or above the limit
        self._now_s = 0.0
        self._patience_s = FIRST_PATIENCE_S
        self._lost_s = 0.0  # to the last trial that was in vain
        self._quiet_until_s = 0.0
        self._probe_at_s = 0.0
        self._jump = 0
        self._probes = 0

    @property
    def threads(self) -> int:
        """What the next step should use."""
        return self._trial.threads if self._trial else self._settled

    @property
    def settled(self) -> int:
        """What a step should use that will not be observed, because steps of its shape cannot be compared."""
        return self._settled

    def limit(self, n: int) -> None:
        """Set the granted cores. A count that was the old limit follows it; a lower one is tried again soon."""
        n = max(1, n)
        if n == self._limit:
            return
        follows = self._settled == self._limit or n < self._settled
        self._limit = n
        self._end_search()
        self._patience_s = FIRST_PATIENCE_S
        self._probe_at_s = self._now_s
        if follows:
            self._settle(n)
            self._probe_at_s += self._patience_s

    def begin(self, free: int) -> None:
        """Start anew after a rest, with no more than the cores that are free now; the others are tried soon."""
        if free < self._settled:
            self._end_search()
            self._settle(max(1, free))
            self._patience_s, self._jump = FIRST_PATIENCE_S, 0
            self._probe_at_s = self._now_s + FIRST_PATIENCE_S / 2

    def observe(self, threads: int, shape: Hashable, duration_s: float) -> None:
        """Learn from one step; changes what `threads` proposes.

        Args:
            threads: what the step was run with.
            shape: steps of an equal shape should take equally long (the number of tokens in the step, say).
            duration_s: how long the step took.
        """
        if not 0.0 < duration_s < float("inf"):
            return
        self._now_s += min(duration_s, _MAX_STEP_S)
        if self._trial:
            if threads == self._trial.threads:
                self._judge(self._trial, shape, duration_s)
        elif threads == self._settled:
            self._watch(shape, duration_s)

    # The settled count

    def _watch(self, shape: Hashable, duration_s: float) -> None:
        window = _kept(self._recent, shape, deque(maxlen=WINDOW_STEPS))
        window.append(duration_s)
        if self._limit == 1 or len(window) < BASELINE_STEPS:
            return
        slow = self._is_slow(shape, _median(window))
        if self._searching:
            self._try_next()
        elif slow and self._settled > 1 and self._now_s >= self._quiet_until_s:
            self._search(_ladder(self._settled), self._settled + 1, helped=False)
        elif self._now_s >= self._probe_at_s and len(window) == WINDOW_STEPS:
            self._probe()

    def _is_slow(self, shape: Hashable, duration_s: float) -> bool:
        """Whether the shape takes much longer than is normal for it; normal follows what is faster, or slowly grows."""
        key = (shape, self._settled)
        normal = _kept(self._normal, key, duration_s)
        self._normal[key] = min(normal * DRIFT, duration_s)
        return duration_s > SLOWDOWN * normal

    def _settle(self, threads: int) -> None:
        self._settled = threads
        self._recent.clear()

    # Trials

    def _probe(self) -> None:
        """Try another count though nothing is wrong: more threads if there are cores left, else fewer.

        Going up, a far jump finds that all is free again and a near one that a part is; they take turns. Going down,
        the counts that would have helped most if something had been wrong from the start do.
        """
        if self._settled == self._limit:
            likely = sorted(_ladder(self._settled)[:3], key=lambda threads: abs(2 * threads - self._settled))
            self._start(likely[self._probes % len(likely)])
            self._probes += 1
        else:
            room = self._limit - self._settled
            self._jump = min(self._jump // 2, room) or room
            self._start(self._settled + self._jump)

    def _search(self, descent: list[int], ceiling: int, *, helped: bool) -> None:
        self._searching, self._helped = True, helped
        self._descent, self._ceiling = descent, ceiling
        self._try_next()

    def _try_next(self) -> None:
        """Go on with the search: down the ladder, then half the way up to the ceiling."""
        if self._descent:
            self._start(self._descent.pop(0))
        elif self._settled + 1 < self._ceiling:
            self._start((self._settled + self._ceiling) // 2)
        else:
            self._accept()

    def _start(self, threads: int) -> None:
        known = {shape: _median(window) for shape, window in self._recent.items() if len(window) >= BASELINE_STEPS}
        self._trial = _Trial(threads, known)

    def _judge(self, trial: _Trial, shape: Hashable, duration_s: float) -> None:
        trial.add(shape, duration_s)
        if trial.is_better is None:
            return
        self._trial = None
        if trial.is_better:
            self._move(trial)
        else:
            self._stay(trial)

    def _move(self, trial: _Trial) -> None:
        """Settle on the better count, and look on in the same direction."""
        previous = self._settled
        self._settle(trial.threads)
        self._patience_s, self._jump = FIRST_PATIENCE_S, 0
        for shape, durations in trial.durations.items():
            self._recent[shape] = deque(durations, maxlen=WINDOW_STEPS)
        if trial.threads < previous:
            descent, ceiling = _ladder(self._settled), min(previous, self._ceiling)
        else:
            descent, ceiling = [], self._ceiling
        self._search(descent, ceiling, helped=True)

    def _stay(self, trial: _Trial) -> None:
        self._recent.clear()  # the next comparison is with steps that were made after this trial
        self._lost_s = trial.lost_s
        self._patience_s *= 4 if trial.growth > CLEAR_GROWTH else 2
        self._patience_s = max(self._patience_s, LEAST_REST * trial.lost_s)
        if not self._searching:
            self._rest()
        elif trial.threads > self._settled:
            self._ceiling = trial.threads
        elif self._helped or trial.growth > HOPELESS_GROWTH:
            self._descent = []
        else:
            self._ceiling = trial.threads  # for the case that a lower count helps

    def _accept(self) -> None:
        """End a search: how long steps take now is normal."""
        self._end_search()
        for key in [key for key in self._normal if key[1] == self._settled]:
            del self._normal[key]
        self._rest()

    def _rest(self) -> None:
        """Leave the count alone for a while."""
        if self._settled == self._limit:
            self._patience_s = min(self._patience_s, max(MAX_PATIENCE_S, MOST_REST * self._lost_s))
        else:
            self._patience_s = min(self._patience_s, MAX_LOWERED_PATIENCE_S)
        self._probe_at_s = self._now_s + self._patience_s
        self._quiet_until_s = self._now_s + self._patience_s / 8

    def _end_search(self) -> None:
        self._trial, self._searching, self._ceiling = None, False, self._limit + 1


class _Trial:
    """A few steps with another count of threads, each compared with the usual duration of its shape.

    `is_better` is None until it is known; `lost_s` is what the slower ones took beyond the usual.
    """

    def __init__(self, threads: int, baselines: dict[Hashable, float]) -> None:
        self.threads = threads
        self.durations: dict[Hashable, list[float]] = {}
        self.is_better: bool | None = None
        self._baselines = baselines
        self._ratios: list[float] = []
        self._steps = 0
        self.lost_s = 0.0

    @property
    def growth(self) -> float:
        """How many times slower than the baseline the fastest step was."""
        return min(self._ratios, default=1.0)

    @property
    def _is_hopeless(self) -> bool:
        if len(self._ratios) < HOPELESS_STEPS:
            return len(self._ratios) == HOPELESS_STEPS - 1 and self.growth > SLOWDOWN
        return self.growth > 1.0

    def add(self, shape: Hashable, duration_s: float) -> None:
        self._steps += 1
        if self._steps == 1:
            return  # it paid for the change of the count
        self.durations.setdefault(shape, []).append(duration_s)
        if shape in self._baselines:
            self._ratios.append(duration_s / self._baselines[shape])
            self.lost_s += max(0.0, duration_s - self._baselines[shape])
        if self._is_hopeless:
            self.is_better = False
        elif len(self._ratios) >= TRIAL_STEPS:
            self.is_better = _median(self._ratios) < GAIN
        elif self._steps >= MAX_TRIAL_STEPS:
            self.is_better = False


def _median(durations: Collection[float]) -> float:
    """The upper one of two; `statistics` is slow to import."""
    return sorted(durations)[len(durations) // 2]


def _ladder(threads: int) -> list[int]:
    """Lower counts, highest first, each about three quarters of the one before."""
    rungs: list[int] = []
    while threads > 1:
        threads = threads * 3 // 4
        rungs.append(threads)
    return rungs


def _kept(values: dict[_K, _V], key: _K, default: _V) -> _V:
    """`values[key]`, set to the default if missing; the oldest goes when there are too many."""
    if key not in values and len(values) >= _MAX_SHAPES:
        del values[next(iter(values))]
    return values.setdefault(key, default)
