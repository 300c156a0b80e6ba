"""The engine's loop over one KV memory: schedule, decode, advance.

Everything but `submit`, `cancel` and the counters is for the engine's one thread.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nbllm.core import Chunk, FinishReason, Row, StepStatus
from nbllm.engine.backend import Context
from nbllm.engine.interface import OnChunk
from nbllm.engine.jobs import Job, Output
from nbllm.engine.pace import Pace
from nbllm.engine.prefixes import PrefixStore
from nbllm.engine.scheduler import Admission, Scheduler
from nbllm.engine.sequence import Batch
from nbllm.engine.sequence import Sequence as Tokens
from nbllm.engine.slots import Slots
from nbllm.errors import EngineClosedError, EngineDeadError, EngineError, NbllmError

_logger = logging.getLogger("nbllm.engine")
_SHORTEST_STORED = 16
"""Tokens: evaluating fewer again costs less than keeping them."""
_OVERRUN_S = 0.15
_PAD_TOKEN = 0


class StepReport(NamedTuple):
    """What a step was: sequences that decoded and prompt tokens beside them, and how long it took."""

    shape: tuple[int, int]
    duration_s: float

    @property
    def is_decode(self) -> bool:
        return self.shape[1] == 0


@dataclass(eq=False, slots=True)
class LaneTicket:
    """A request in a lane: its jobs, and where their chunks go."""

    lane: Lane
    jobs: tuple[Job, ...]
    on_chunk: OnChunk
    deadline: float | None = None
    num_open: int = 0
    is_cancelled: bool = False

    @property
    def is_done(self) -> bool:
        return self.num_open == 0

    def cancel(self) -> None:
        if not self.is_done:
            self.lane.cancel(self)


@dataclass(slots=True)
class Counters:
    """What a lane has done since it was made."""

    num_steps: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Lane:
    """Continuous batching over one context.

    Args:
        context: owned from here on; `close` closes it.
        max_batch_sequences: slots for batch work; the context has at least one more, for a person.
        store_bytes: host memory for idle prefixes.
        grid: fixed shapes, as the scheduler says; every slot then takes part in every decode, busy or not.
        wake: called when there is something to do.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        context: Context,
        *,
        max_batch_sequences: int,
        store_bytes: int,
        wake: Callable[[], None],
        clock: Callable[[], float],
        grid: int | None = None,
        shared: bool = True,
    ) -> None:
        self._context = context
        self._slots = Slots(context.num_slots, shared=shared)
        self._scheduler = Scheduler(
            self._slots, max_batch_sequences=max_batch_sequences, pool_capacity=context.pool_capacity, grid=grid
        )
        self._grid = grid
        self._pace = Pace(context.max_batch)
        self._store = PrefixStore(store_bytes)
        self._wake, self._clock = wake, clock
        self._inbox: deque[LaneTicket] = deque()
        self._cancels: deque[LaneTicket] = deque()
        self._deadlines: list[tuple[float, int, LaneTicket]] = []
        self._order = itertools.count()
        self._jobs: dict[Tokens, tuple[Job, LaneTicket]] = {}
        self._parked: dict[Tokens, tuple[bytes, int]] = {}
        self._in_flight: frozenset[LaneTicket] = frozenset()
        self._state_lock = threading.Lock()
        self._ended: BaseException | None = None
        self.counters = Counters()

    # ---- any thread

    def submit(self, ticket: LaneTicket) -> None:
        """Take a request in. Raises EngineError when the lane has ended."""
        with self._state_lock:
            if self._ended is not None:
                raise self._ended
            ticket.num_open = len(ticket.jobs)
            self._inbox.append(ticket)
        self._wake()

    def cancel(self, ticket: LaneTicket) -> None:
        """End a request. A step that only it needs is stopped at once, any other that runs over a little later."""
        ticket.is_cancelled = True
        self._cancels.append(ticket)
        flight = self._in_flight
        if flight and all(other.is_cancelled for other in flight):
            self._context.abort()
        elif ticket in flight:
            timer = threading.Timer(_OVERRUN_S, self._stop_overrun, [flight])
            timer.daemon = True
            timer.start()
        self._wake()

    def _stop_overrun(self, flight: frozenset[LaneTicket]) -> None:
        if self._in_flight is flight:
            self._context.abort()

    def stop_step(self) -> None:
        """Stop the step that is being evaluated, if any; what it evaluates is evaluated again."""
        self._context.abort()

    @property
    def has_work(self) -> bool:
        return bool(self._inbox or self._cancels or self._scheduler.has_work)

    @property
    def load(self) -> tuple[int, int, int, int]:
        """Running and waiting sequences, cells in use, bytes of idle prefixes."""
        waiting = self._scheduler.num_waiting + len(self._inbox)
        return len(self._scheduler.running), waiting, self._slots.cells, self._store.num_bytes

    # ---- the engine's thread

    def step(self, threads: int, prefill_threads: int) -> StepReport | None:
        """Do one step of whatever there is to do; None when nothing was evaluated.

        Args:
            threads: for a step that only decodes, whose duration tells something about the count.
            prefill_threads: for any other.
        """
        self._take_in()
        self._end_unwanted()
        self._admit()
        batch = self._schedule()
        if not batch.slices:
            return None
        rows = self._rows(batch)
        only_decodes = batch.num_decoding == batch.num_tokens
        self._context.set_threads(threads if only_decodes else prefill_threads)
        started = self._clock()
        status = self._decode(batch, rows)
        if status is StepStatus.OK:
            report = self._measured(batch, self._clock() - started)
            self._advance(batch, rows)
            return report
        self._roll_back(batch)
        if status is StepStatus.FULL:
            self._make_room(batch)
        return None

    def close(self, error: BaseException | None = None) -> None:
        """End every request with `error` and free the context. Twice is harmless."""
        with self._state_lock:
            if self._ended is not None:
                return
            self._ended = error or EngineClosedError("the model was closed; load it again with nbllm.load")
        self._take_in()
        for sequence in list(self._jobs):
            self._end(sequence, "error", self._ended)
        self._store.clear()
        self._context.close()

    def die(self, error: Exception) -> None:
        """Close because a step raised; what is left of the context cannot be trusted."""
        _logger.exception("the engine stopped")
        dead = EngineDeadError(f"the engine stopped: {error}; load the model again with nbllm.load")
        dead.__cause__ = error
        self.close(dead)

    def check_integrity(self) -> None:
        self._slots.check_integrity()
        assert {s for s in self._jobs if s.slot is not None} == set(self._slots.holders()), "a slot without a job"

    # ---- requests in and out

    def _take_in(self) -> None:
        while self._inbox:
            ticket = self._inbox.popleft()
            if ticket.deadline is not None:
                heapq.heappush(self._deadlines, (ticket.deadline, next(self._order), ticket))
            for job in ticket.jobs:
                self._jobs[job.sequence] = (job, ticket)
                self._scheduler.add(job.sequence)

    def _end_unwanted(self) -> None:
        while self._cancels:
            ticket = self._cancels.popleft()
            self._take_in()  # it may have come in since
            self._end_all(ticket, "interrupted")
        now = self._clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            self._end_all(heapq.heappop(self._deadlines)[2], "timeout")

    def _end_all(self, ticket: LaneTicket, reason: FinishReason) -> None:
        for job in ticket.jobs:
            if not job.sequence.is_finished:
                self._end(job.sequence, reason)

    def _end(self, sequence: Tokens, reason: FinishReason, error: BaseException | None = None) -> None:
        job, ticket = self._jobs.pop(sequence)
        chunk = job.finish(reason, error)
        job.close()
        self._count(chunk)
        self._give(ticket, chunk)  # before the prefix is stored, which takes a moment that nobody needs to wait for
        self._scheduler.remove(sequence)
        self._parked.pop(sequence, None)
        if sequence.slot is not None:
            if self._ended is None:
                self._keep_prefix(sequence)
                self._context.forget(sequence.slot)
            self._slots.release(sequence)
        ticket.num_open -= 1

    def _give(self, ticket: LaneTicket, chunk: Chunk) -> None:
        try:
            ticket.on_chunk(chunk)
        except Exception:  # a reader's bug must not take the engine and everybody else's answers with it
            _logger.exception("on_chunk raised; its request is ended")
            if not ticket.is_cancelled:
                ticket.is_cancelled = True
                self._cancels.append(ticket)

    def _count(self, chunk: Chunk) -> None:
        if chunk.usage is not None:
            self.counters.prompt_tokens += chunk.usage.prompt_tokens
            self.counters.completion_tokens += chunk.usage.completion_tokens
            self.counters.cached_tokens += chunk.usage.cached_tokens

    # ---- slots

    def _admit(self) -> None:
        while self._scheduler.num_waiting:
            admission = self._scheduler.next_admission()
            if admission is not None:
                self._place(admission)
                continue
            victim = self._scheduler.next_victim()
            if victim is None:
                return
            self._move_out(victim)

    def _place(self, admission: Admission) -> None:
        """Give an admitted sequence a slot, and the longest evaluated prefix that can be had."""
        sequence = admission.sequence
        slot = self._slots.take(sequence)
        clocks = self._jobs[sequence][0].clocks
        clocks.admitted = clocks.admitted or self._clock()
        parked = self._parked.pop(sequence, None)
        if parked is not None:
            state, length = parked
            if self._context.restore(slot, state, length):
                self._slots.extend(sequence, length)
            return
        self._reuse(admission, slot)
        sequence.num_cached = sequence.num_evaluated

    def _reuse(self, admission: Admission, slot: int) -> None:
        sequence, source, length = admission
        if not sequence.reuses:
            return
        entry, stored = self._store.longest(sequence.tokens)
        stored = self._scheduler.usable(stored, sequence)
        if entry is not None and stored > length and self._context.restore(slot, entry.state, stored):
            self._store.touch(entry)
            self._slots.extend(sequence, stored)
        elif (
            source is not None and source.slot is not None and length and self._context.fork(source.slot, slot, length)
        ):
            self._slots.fork(source, sequence, length)

    def _move_out(self, sequence: Tokens) -> None:
        """Move a running sequence to host memory; it comes back when there is room."""
        if sequence.slot is None:
            return
        if sequence.num_evaluated:
            self._parked[sequence] = (self._context.save(sequence.slot), sequence.num_evaluated)
        self._context.forget(sequence.slot)
        self._slots.release(sequence)
        self._scheduler.put_back(sequence)

    def _keep_prefix(self, sequence: Tokens) -> None:
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

    # ---- one step

    def _schedule(self) -> Batch:
        while (victim := self._scheduler.overflowing()) is not None:
            self._move_out(victim)
        decoding = self._scheduler.decoding
        budget = self._pace.budget(len(decoding))
        free = self._context.pool_capacity - self._slots.cells - sum(one.num_pending for one in decoding)
        return self._scheduler.schedule(max(1, min(budget, free)), self._context.max_batch)

    def _decode(self, batch: Batch, rows: list[Row]) -> StepStatus:
        self._context.abort(False)
        self._in_flight = frozenset(self._jobs[part.sequence][1] for part in batch.slices)
        try:
            if all(ticket.is_cancelled for ticket in self._in_flight):
                return StepStatus.ABORTED
            embeds = any(self._jobs[part.sequence][0].needs_embeddings for part in batch.slices)
            return self._context.decode(rows, embeddings=embeds)
        finally:
            self._in_flight = frozenset()

    def _rows(self, batch: Batch) -> list[Row]:
        rows = [
            Row(
                part.sequence.tokens[position],
                position,
                part.sequence.slot or 0,
                position >= part.sequence.outputs_from,
            )
            for part in batch.slices
            for position in range(part.start, part.stop)
        ]
        if self._grid is None or any(part.sequence.is_prefilling for part in batch.slices):
            return rows
        return sorted([*rows, *self._padding(batch)], key=lambda row: row.slot)

    def _padding(self, batch: Batch) -> list[Row]:
        """A row for every slot that does not decode, so that a decode always has the same shape."""
        busy = {part.sequence.slot for part in batch.slices}
        held = {sequence.slot: sequence.num_evaluated for sequence in self._slots.holders()}
        return [
            Row(_PAD_TOKEN, held.get(slot, 0), slot, True)
            for slot in range(self._context.num_slots)
            if slot not in busy
        ]

    def _measured(self, batch: Batch, duration_s: float) -> StepReport:
        num_decoding = batch.num_decoding
        num_prompt = batch.num_tokens - num_decoding
        if self._grid is None:
            self._pace.observe(num_decoding, num_prompt, duration_s)
        self.counters.num_steps += 1
        return StepReport((num_decoding, num_prompt), duration_s)

    def _advance(self, batch: Batch, rows: list[Row]) -> None:
        """Tell every job what its outputs were, and end the jobs that are done."""
        self._remove_padding(batch)
        outputs = _outputs(batch, rows)
        for part in batch.slices:
            self._slots.extend(part.sequence, part.stop - part.start)
        now = self._clock()
        for part, found in zip(batch.slices, outputs, strict=True):
            if found:
                self._advance_one(part.sequence, found, now)

    def _advance_one(self, sequence: Tokens, outputs: Sequence[Output], now: float) -> None:
        job, ticket = self._jobs[sequence]
        try:
            reason = job.advance(self._context, outputs, now)
        except EngineError:
            raise
        except NbllmError as error:
            self._end(sequence, "error", error)
            return
        except Exception as error:  # a fault of one request's grammar or arithmetic must not end the others
            _logger.exception("a request failed")
            failed = EngineError(f"the request failed: {error}")
            failed.__cause__ = error
            self._end(sequence, "error", failed)
            return
        if reason is not None:
            self._end(sequence, reason)
            return
        chunk = job.due(now)
        if chunk is not None:
            self._give(ticket, chunk)

    def _remove_padding(self, batch: Batch) -> None:
        if self._grid is None or any(part.sequence.is_prefilling for part in batch.slices):
            return
        held = {sequence.slot: sequence for sequence in self._slots.holders()}
        for row in self._padding(batch):
            if row.slot in held:
                self._recover(held[row.slot])
            else:
                self._context.forget(row.slot)

    def _roll_back(self, batch: Batch) -> None:
        """Cut every slot back to what its books say; a memory that cannot be cut starts from nothing."""
        self._remove_padding(batch)
        for part in batch.slices:
            self._recover(part.sequence)

    def _recover(self, sequence: Tokens) -> None:
        if sequence.slot is not None and not self._context.cut(sequence.slot, sequence.num_evaluated):
            self._slots.cut(sequence, 0)

    def _make_room(self, batch: Batch) -> None:
        """llama.cpp found no cells for the batch: move one sequence out, or give up on the only one."""
        victim = self._scheduler.any_to_move()
        if victim is not None:
            self._move_out(victim)
            return
        for part in batch.slices:
            error = EngineError("the KV memory is full; load the model with a larger context_length")
            self._end(part.sequence, "error", error)


def _outputs(batch: Batch, rows: list[Row]) -> list[list[Output]]:
    """Where each slice's wanted outputs are among the rows."""
    place = {(row.slot, row.position): index for index, row in enumerate(rows) if row.output}
    return [
        [
            Output(place[slot, position], position)
            for slot in (part.sequence.slot or 0,)
            for position in range(part.start, part.stop)
            if (slot, position) in place
        ]
        for part in batch.slices
    ]
