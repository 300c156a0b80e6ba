"""What a person sees of a long run: an estimate once it can be made, a bar, and how to go on after an interrupt."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbllm.frames.asks import Progress
from nbllm.frames.durations import duration_text, rate_text, rough

if TYPE_CHECKING:
    from tqdm import tqdm

SAMPLE = 20
"""Rows that are computed before it is said how long the rest will take."""
_SHORT_S = 2.0


class Meter:
    """Counts rows, and shows them if it is wanted. For one thread.

    Args:
        progress: as in `RunOptions`.
        clock: seconds, for tests.
        label: what stands before the bar.
        started: by the clock, when what is shown began; now if not given.

    Attributes:
        done: finished rows.
    """

    def __init__(
        self,
        total: int,
        progress: bool | Progress | None,
        clock: Callable[[], float] = time.monotonic,
        label: str = "",
        started: float | None = None,
    ) -> None:
        self.total, self.done = total, 0
        self._report = progress if callable(progress) else None
        self._shows = progress is True or progress is None
        self._clock, self._label = clock, label
        self._started = clock() if started is None else started
        self._first_at: float | None = None  # when a computed row was finished
        self._fastest_s = float("inf")
        self._began_to_compute: float | None = None
        self._computed = 0
        self._found = 0  # rows that were finished without computing
        self._to_compute = 0
        self._is_exact = True
        self._bar: tqdm[Any] | None = None
        if progress is True and total:
            self._open()

    @property
    def rows_before_estimate(self) -> int | None:
        """How many rows are still to be computed for the estimate, None when there is nothing to wait for."""
        if not self._shows or self._computed >= SAMPLE or self._to_compute <= SAMPLE:
            return None
        return SAMPLE - self._computed

    def expect(self, to_compute: int, rows: int, rows_after: int) -> None:
        """Of the next `rows` rows so many are to be computed. What comes after them is taken to be like them."""
        if self._began_to_compute is None:
            self._began_to_compute = self._clock()
            self._to_compute = round(to_compute * (1 + rows_after / rows)) if rows else 0
            self._is_exact = not rows_after

    def advance(self, rows: int, *, computed: int = 0, took_s: float = 0.0) -> None:
        """So many more rows are finished, of which so many were computed just now, in so many seconds of their own."""
        self.done += rows
        self._found += 0 if computed else rows
        if self._bar is not None:
            self._bar.initial = self._found
            self._bar.update(rows)
        if self._report is not None and rows:
            self._report(self.done, self.total)
        if computed and took_s:
            self._first_at = self._first_at or self._clock()
            self._fastest_s = min(self._fastest_s, took_s)
        before, self._computed = self._computed, self._computed + computed
        if self._shows and before < SAMPLE <= self._computed:
            self._estimate()
        self.tick()

    def tick(self) -> None:
        """Time has passed."""
        if self._shows and self._bar is None and self._clock() - self._started > _SHORT_S and self.done < self.total:
            self._open()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, line: str) -> None:
        """Print a line where the bar ends."""
        self.close()
        say(line)

    def _estimate(self) -> None:
        began = self._began_to_compute or self._started
        rows_began = self._rows_began(began)
        elapsed = self._clock() - rows_began
        whole = rows_began - began + elapsed * self._to_compute / self._computed
        if self._to_compute <= self._computed or whole - (self._clock() - began) <= _SHORT_S:
            return
        part = ""
        if self._to_compute < self.total:
            part = f", {'' if self._is_exact else 'about '}{self._to_compute:,} to compute"
        line = f"{self.total:,} rows{part}: about {duration_text(rough(whole))} ({rate_text(self._computed, elapsed)})"
        if self._bar is None:
            say(line)
            self._open()
        else:
            self._bar.write(line, file=sys.stdout)

    def _rows_began(self, began: float) -> float:
        """Before that came what no later row costs: a load, and the beginning that all rows share."""
        return began if self._first_at is None else max(began, self._first_at - self._fastest_s)

    def _open(self) -> None:
        from tqdm import tqdm

        bar = self._bar = tqdm(
            desc=self._label or None,
            total=self.total,
            initial=self.done,
            file=sys.stdout,
            unit=" rows",
            mininterval=0.25,
            delay=1e-9,  # so that it is first drawn with the time that has passed
        )
        bar.start_t -= self._clock() - self._started
        bar.initial = self._found  # the others were computed in that time
        bar.refresh()


def say(line: str) -> None:
    """Tell a person; where there is no standard output, nobody."""
    if sys.stdout is not None:  # a process without a console has none
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
