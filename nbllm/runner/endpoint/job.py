"""One request to another server: what was asked, and what has come of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from nbllm.core import Chunk, FinishReason, GenerateRequest, Request, Timings, Usage
from nbllm.engine.interface import OnChunk, num_answers


class Job:
    """Implements `engine.interface.Ticket`. All but `is_done` and `cancel` is for the loop's thread.

    Args:
        on_cancel: called with the job when somebody cancels it, on that one's thread.
    """

    def __init__(self, request: Request, on_chunk: OnChunk, on_cancel: Callable[[Job], None]) -> None:
        self.request = request
        self.task: asyncio.Task[None] | None = None
        self.usage = Usage()
        self.ended_by: FinishReason | None = None
        self.error: BaseException | None = None
        self.is_stopped = asyncio.Event()
        self._on_chunk, self._on_cancel = on_chunk, on_cancel
        self._open = set(range(num_answers(request)))
        self._submitted = time.monotonic()
        self._begun = self._first = self._last = 0.0

    @property
    def is_done(self) -> bool:
        return not self._open

    def cancel(self) -> None:
        if not self.is_done:
            self._on_cancel(self)

    def stop(self, reason: FinishReason, error: BaseException | None = None) -> None:
        """End the work on it; what was the first reason stays."""
        if self.ended_by is None and not self.is_done:
            self.ended_by, self.error = reason, error
            self.is_stopped.set()
            if self.task is not None:
                self.task.cancel()

    @property
    def seed(self) -> int | None:
        return self.request.sampling.seed if isinstance(self.request, GenerateRequest) else None

    @property
    def has_answered(self) -> bool:
        """Whether something was given out, after which asking again would say it twice."""
        return self._first > 0

    @property
    def is_running(self) -> bool:
        return self._begun > 0 and not self.is_done

    @property
    def is_waiting(self) -> bool:
        return not self._begun and not self.is_done

    def begin(self) -> None:
        self._begun = time.monotonic()

    def remaining_s(self) -> float | None:
        """Until the request's timeout, which counts from its submission."""
        timeout_s = self.request.timeout_s
        return None if timeout_s is None else max(0.0, self._submitted + timeout_s - time.monotonic())

    def give(self, chunk: Chunk) -> None:
        """Hand a chunk on; what comes after the last one of an answer, or after an exception, is dropped."""
        if chunk.index not in self._open:
            return
        self._last = time.monotonic()
        self._first = self._first or self._last
        if chunk.finish_reason is not None:
            self._open.discard(chunk.index)
        try:
            self._on_chunk(chunk)
        except Exception as exc:  # noqa: BLE001  # whoever listens has failed, and nobody else is there to be told
            self.stop("error", exc)
            self._open.clear()

    def finish(self, reason: FinishReason, error: BaseException | None = None) -> None:
        """The last chunk of each answer that has none yet."""
        for position, index in enumerate(sorted(self._open)):
            usage = self.usage if position == 0 else Usage()
            last = Chunk(
                index=index, finish_reason=reason, error=error, usage=usage, timings=self.timings(), seed=self.seed
            )
            self.give(last)

    def timings(self) -> Timings:
        if not self._begun:
            return Timings(queue_s=time.monotonic() - self._submitted)
        first = self._first or time.monotonic()
        return Timings(
            queue_s=self._begun - self._submitted,
            prefill_s=first - self._begun,
            first_token_s=first - self._submitted,
            decode_s=max(0.0, self._last - first),
        )
