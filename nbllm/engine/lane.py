"""The engine's loop over one KV memory: schedule, decode, advance.

Everything but `submit`, `cancel`, `stop_step` and the counters is for the engine's one thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from nbllm.core import Chunk, FinishReason, Row, StepStatus
from nbllm.engine.backend import Context
from nbllm.engine.branches import Branches
from nbllm.engine.flight import Flight
from nbllm.engine.jobs import Job
from nbllm.engine.likelihoods import Output
from nbllm.engine.pace import TARGET_S, UNWATCHED_S, Pace
from nbllm.engine.report import Counters, StepReport
from nbllm.engine.residents import Residents
from nbllm.engine.rows import outputs, padding, rows
from nbllm.engine.scheduler import Scheduler
from nbllm.engine.sequence import Batch
from nbllm.engine.sequence import Sequence as Tokens
from nbllm.engine.slots import Slots
from nbllm.engine.tickets import Inbox, LaneTicket
from nbllm.errors import EngineClosedError, EngineDeadError, EngineError, NbllmError

_logger = logging.getLogger("nbllm.engine")


class Books(NamedTuple):
    """What a lane keeps of its requests.

    Attributes:
        inbox: what they come in through, perhaps before there is a context.
        tickets: those that were taken out of it already.
    """

    inbox: Inbox
    tickets: Iterable[LaneTicket]
    counters: Counters


class Lane:
    """Continuous batching over one context.

    Args:
        context: owned from here on; `close` closes it.
        max_batch_sequences: slots for batch work; the context has at least one more, for a person.
        store_bytes: host memory for idle prefixes.
        grid: fixed shapes, as the scheduler says; every slot then takes part in every decode, busy or not.
        wake: called when there is something to do.
        num_spare: of the context's slots, the last ones, which branches are evaluated in.
        clock: seconds, monotonic.
        books: to go on with; None begins new ones.
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
        num_spare: int = 0,
        books: Books | None = None,
    ) -> None:
        self._context = context
        self._slots = Slots(context.num_slots - num_spare, shared=shared)
        self._scheduler = Scheduler(
            self._slots, max_batch_sequences=max_batch_sequences, pool_capacity=context.pool_capacity, grid=grid
        )
        self._grid = grid
        self._pace = Pace(context.max_batch)
        self._residents = Residents(context, self._slots, self._scheduler.usable, store_bytes=store_bytes, grid=grid)
        self._branches = Branches(context, self._slots, range(context.num_slots - num_spare, context.num_slots))
        self._wake, self._clock = wake, clock
        books = books or Books(Inbox(), (), Counters())
        self._inbox = books.inbox
        self._jobs: dict[Tokens, tuple[Job, LaneTicket]] = {}
        self._flight = Flight(context)
        self.counters = books.counters
        for ticket in books.tickets:
            self._take(ticket)

    # ---- any thread

    def submit(self, ticket: LaneTicket) -> None:
        """Take a request in. Raises EngineError when the lane has ended."""
        self._inbox.hand_in(ticket, self._wake)

    def check_open(self) -> None:
        """Raises what the lane has ended with."""
        if self._inbox.ended is not None:
            raise self._inbox.ended

    def cancel(self, ticket: LaneTicket) -> None:
        """End a request, and the step that is being evaluated if only this request needs it."""
        self._inbox.cancel(ticket)
        self._flight.stop_for(ticket)
        self._wake()

    def stop_step(self) -> None:
        """Stop the step that is being evaluated, if any; what it evaluates is evaluated again."""
        self._flight.stop()

    @property
    def has_work(self) -> bool:
        return self._inbox.has_news or self._scheduler.has_work

    @property
    def load(self) -> tuple[int, int, int, int]:
        """Running and waiting sequences, cells in use, bytes of idle prefixes."""
        waiting = self._scheduler.num_waiting + self._inbox.num_arrived
        return len(self._scheduler.running), waiting, self._slots.cells, self._residents.stored_bytes

    # ---- the engine's thread

    def step(self, threads: int, prefill_threads: Callable[[], int]) -> StepReport | None:
        """Do one step of whatever there is to do; None when nothing was evaluated.

        Args:
            threads: for a step that only decodes, whose duration tells something about the count.
            prefill_threads: asked for any other.
        """
        self._take_in()
        self._end_unwanted()
        self._admit()
        batch = self._schedule()
        if not batch.slices:
            return None
        evaluated = self._rows(batch)
        only_decodes = batch.num_decoding == batch.num_tokens
        self._context.set_threads(threads if only_decodes else prefill_threads())
        started = self._clock()
        status = self._decode(batch, evaluated)
        if status is StepStatus.OK:
            report = self._measured(batch, self._clock() - started)
            self._advance(batch, evaluated)
            return report
        self._roll_back(batch)
        if status is StepStatus.FULL:
            self._make_room(batch)
        return None

    def close(self, error: BaseException | None = None) -> None:
        """End every request with `error` and free the context. Twice is harmless."""
        ended = error or EngineClosedError("the model was closed; load it again with nbllm.load")
        if not self._inbox.close(ended):
            return
        self._take_in()
        for sequence in list(self._jobs):
            self._end(sequence, "error", ended)
        self._residents.clear()
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
        for ticket in self._inbox.arrivals():
            self._take(ticket)

    def _take(self, ticket: LaneTicket) -> None:
        for job in ticket.jobs:
            self._jobs[job.sequence] = (job, ticket)
            self._scheduler.add(job.sequence)

    def _end_unwanted(self) -> None:
        for ticket, reason in self._inbox.unwanted(self._clock()):
            self._take_in()  # it may have come in since
            self._end_all(ticket, reason)

    def _end_all(self, ticket: LaneTicket, reason: FinishReason) -> None:
        for job in ticket.jobs:
            if not job.sequence.is_finished:
                self._end(job.sequence, reason)

    def _end(self, sequence: Tokens, reason: FinishReason, error: BaseException | None = None) -> None:
        job, ticket = self._jobs.pop(sequence)
        chunks = job.finish(reason, error)
        job.close()
        for chunk in chunks:  # before the prefix is stored, which takes a moment that nobody needs to wait for
            self._count(chunk)
            self._give(ticket, chunk)
        self._scheduler.remove(sequence)
        if self._inbox.ended is None:
            self._residents.leave(sequence)
        ticket.num_open -= 1

    def _give(self, ticket: LaneTicket, chunk: Chunk) -> None:
        try:
            ticket.on_chunk(chunk)
        except Exception:  # a reader's bug must not take the engine and everybody else's answers with it
            _logger.exception("on_chunk raised; its request is ended")
            if not ticket.is_cancelled:
                self._inbox.cancel(ticket)

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
                clocks = self._jobs[admission.sequence][0].clocks
                clocks.admitted = clocks.admitted or self._clock()
                self._residents.move_in(admission)
                continue
            victim = self._scheduler.next_victim()
            if victim is None:
                return
            self._move_out(victim)

    def _move_out(self, sequence: Tokens) -> None:
        """Move a running sequence to host memory; it comes back when there is room."""
        if sequence.slot is not None:
            self._residents.move_out(sequence)
            self._scheduler.put_back(sequence)

    # ---- one step

    def _schedule(self) -> Batch:
        while (victim := self._scheduler.overflowing()) is not None:
            self._move_out(victim)
        decoding = self._scheduler.decoding
        is_watched = any(sequence.priority == "interactive" for sequence in self._scheduler.running)
        budget = self._pace.budget(len(decoding), TARGET_S if is_watched else UNWATCHED_S)
        coming = sum(one.num_pending for one in decoding)
        free = self._context.pool_capacity - self._slots.cells - coming
        room = max(1, min(budget, free))
        branches = self._branches.grow(self._scheduler.running, room, self._context.max_batch - coming)
        taken = sum(part.stop - part.start for part in branches)
        batch = self._scheduler.schedule(max(0, room - taken), self._context.max_batch - taken)
        return Batch((*batch.slices, *branches))

    def _decode(self, batch: Batch, evaluated: list[Row]) -> StepStatus:
        involved = [self._jobs[part.sequence.trunk or part.sequence] for part in batch.slices]
        embeds = any(job.needs_embeddings for job, _ in involved)
        try:
            return self._flight.run((ticket for _, ticket in involved), evaluated, embeddings=embeds)
        finally:
            self._branches.drop()

    def _rows(self, batch: Batch) -> list[Row]:
        return (
            sorted([*rows(batch), *self._padding(batch)], key=lambda row: row.slot)
            if self._pads(batch)
            else rows(batch)
        )

    def _pads(self, batch: Batch) -> bool:
        return self._grid is not None and not any(part.sequence.is_prefilling for part in batch.slices)

    def _padding(self, batch: Batch) -> list[Row]:
        return padding(batch, self._slots.holders(), self._context.num_slots)

    def _measured(self, batch: Batch, duration_s: float) -> StepReport:
        num_decoding = batch.num_decoding
        num_prompt = batch.num_tokens - num_decoding
        if self._grid is None:
            self._pace.observe(num_decoding, num_prompt, duration_s)
        self.counters.num_steps += 1
        return StepReport((num_decoding, num_prompt), duration_s)

    def _advance(self, batch: Batch, evaluated: list[Row]) -> None:
        """Tell every job what its outputs were, and end the jobs that are done."""
        self._remove_padding(batch)
        wanted = outputs(batch, evaluated)
        for part in batch.slices:
            if part.sequence.trunk is None:
                self._slots.extend(part.sequence, part.stop - part.start)
        now = self._clock()
        for part, found in zip(batch.slices, wanted, strict=True):
            sequence = part.sequence.trunk or part.sequence
            if found and not sequence.is_finished:
                self._advance_one(sequence, found, now)

    def _advance_one(self, sequence: Tokens, found: Sequence[Output], now: float) -> None:
        job, ticket = self._jobs[sequence]
        try:
            reason = job.advance(self._context, found, now)
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
        if not self._pads(batch):
            return
        held = {sequence.slot: sequence for sequence in self._slots.holders()}
        for row in self._padding(batch):
            if row.slot in held:
                self._residents.recover(held[row.slot])
            else:
                self._context.forget(row.slot)

    def _roll_back(self, batch: Batch) -> None:
        """Cut every slot back to what its books say; a memory that cannot be cut starts from nothing."""
        self._remove_padding(batch)
        for part in batch.slices:
            if part.sequence.trunk is None:
                self._residents.recover(part.sequence)

    def _make_room(self, batch: Batch) -> None:
        """llama.cpp found no cells for the batch: move one sequence out, or give up on the only one."""
        victim = self._scheduler.any_to_move()
        if victim is not None:
            self._move_out(victim)
            return
        for sequence in dict.fromkeys(part.sequence.trunk or part.sequence for part in batch.slices):
            error = EngineError("the KV memory is full; load the model with a larger context_length")
            self._end(sequence, "error", error)
