"""What every engine is, wherever it runs: requests in, chunks out."""

from __future__ import annotations

import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nbllm.core import ChoiceRequest, Chunk, EngineInfo, GenerateRequest, RenderedPrompt, Request

if TYPE_CHECKING:
    import asyncio

OnChunk = Callable[[Chunk], None]


class Ticket(Protocol):
    """A request that was taken in."""

    @property
    def is_done(self) -> bool:
        """Whether the last chunk of every answer has been given out."""

    def cancel(self) -> None:
        """End the request within a step, keeping the text so far. Safe on any thread, and after the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What an engine is doing.

    Attributes:
        num_running: sequences in the KV memory.
        num_waiting: sequences that wait for a slot.
        pool_cells: cells of the KV memory in use.
        stored_bytes: of idle prefixes in host memory.
        threads: that the last step was computed with.
    """

    num_running: int = 0
    num_waiting: int = 0
    pool_cells: int = 0
    stored_bytes: int = 0
    threads: int = 0
    num_steps: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Engine(Protocol):
    """One loaded model that answers requests, several at a time."""

    @property
    def info(self) -> EngineInfo: ...

    def submit(self, request: Request, on_chunk: OnChunk) -> Ticket:
        """Take a request in and return at once.

        `on_chunk` is called from the engine's thread with each chunk, in order, the last one of each answer
        carrying a `finish_reason`. It has to be quick; an exception in it ends the request and nothing else.

        Raises:
            InvalidRequestError: the request cannot be done; nothing was taken in.
            EngineError: the engine is closed or dead.
        """

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]: ...
    def detokenize(self, tokens: Sequence[int]) -> str: ...
    def render(self, request: GenerateRequest) -> RenderedPrompt:
        """Exactly what the request becomes."""

    def stats(self) -> EngineStats: ...
    def close(self) -> None:
        """End what runs, free the model. Twice is harmless."""


def iter_chunks(engine: Engine, request: Request) -> Iterator[Chunk]:
    """Submit, and give the chunks as they come. Leaving the loop early, an interrupt included, cancels the request."""
    inbox: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
    remaining = num_answers(request)
    ticket = engine.submit(request, inbox.put)
    try:  # nothing comes between, or an interrupt there would leave the request running
        while remaining:
            chunk = next_chunk(inbox)
            remaining -= chunk.finish_reason is not None
            yield chunk
    finally:
        ticket.cancel()


async def aiter_chunks(engine: Engine, request: Request) -> AsyncIterator[Chunk]:
    """`iter_chunks` for an event loop, which it never blocks."""
    import asyncio

    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[Chunk] = asyncio.Queue()

    def hand_over(chunk: Chunk) -> None:
        loop.call_soon_threadsafe(inbox.put_nowait, chunk)

    ticket = await submitted(loop.run_in_executor(None, engine.submit, request, hand_over))
    remaining = num_answers(request)
    try:
        while remaining:
            chunk = await inbox.get()
            remaining -= chunk.finish_reason is not None
            yield chunk
    finally:
        ticket.cancel()


async def submitted(submission: asyncio.Future[Ticket]) -> Ticket:
    """The ticket; a task that is cancelled before there is one cancels the request as soon as there is."""
    import asyncio

    try:
        return await asyncio.shield(submission)
    except asyncio.CancelledError:
        submission.add_done_callback(_cancel_submitted)
        raise


def _cancel_submitted(submission: asyncio.Future[Ticket]) -> None:
    if not submission.cancelled() and submission.exception() is None:
        submission.result().cancel()


def next_chunk(inbox: queue.SimpleQueue[Chunk], timeout_s: float | None = None) -> Chunk:
    """Wait for a chunk so that an interrupt gets through on every platform.

    Raises:
        TimeoutError: none came within `timeout_s`.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            return inbox.get(timeout=0.5 if deadline is None else max(0.0, min(0.5, deadline - time.monotonic())))
        except queue.Empty:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError from None


def num_answers(request: Request) -> int:
    """How many last chunks the request will get."""
    if isinstance(request, GenerateRequest):
        return request.sampling.n
    if isinstance(request, ChoiceRequest):
        return len(request.choices)
    return len(request.texts) if hasattr(request, "texts") else 1
