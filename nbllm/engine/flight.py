"""The step that is being evaluated, and who may stop it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from nbllm.core import Row, StepStatus
from nbllm.engine.backend import Context
from nbllm.engine.tickets import LaneTicket

_OVERRUN_S = 0.15


class Flight:
    """Evaluates batches, and stops one that nobody waits for any more. `run` is for the engine's thread alone."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tickets: frozenset[LaneTicket] = frozenset()

    def run(self, tickets: Iterable[LaneTicket], rows: Sequence[Row], *, embeddings: bool) -> StepStatus:
        """Evaluate rows for these tickets."""
        self._context.abort(False)
        self._tickets = frozenset(tickets)
        try:
            if all(ticket.is_cancelled for ticket in self._tickets):
                return StepStatus.ABORTED
            return self._context.decode(rows, embeddings=embeddings)
        finally:
            self._tickets = frozenset()

    def stop(self) -> None:
        """Stop the step, if any; what it evaluates is evaluated again."""
        self._context.abort()

    def stop_for(self, ticket: LaneTicket) -> None:
        """A ticket was cancelled: a step that only such need is stopped at once, any other that runs over later."""
        tickets = self._tickets
        if tickets and all(other.is_cancelled for other in tickets):
            self._context.abort()
        elif ticket in tickets:
            timer = threading.Timer(_OVERRUN_S, self._stop_overrun, [tickets])
            timer.daemon = True
            timer.start()

    def _stop_overrun(self, tickets: frozenset[LaneTicket]) -> None:
        if self._tickets is tickets:
            self._context.abort()
