"""What an engine's chunks come to: one row's outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from nbllm.core import ChoiceRequest, Chunk, GenerateRequest
from nbllm.engine.interface import Engine, Ticket, num_answers
from nbllm.errors import ConstraintError, EngineError, NbllmError
from nbllm.frames.asks import Ask, Outcome, Watch
from nbllm.frames.dtypes import well_formed
from nbllm.session.response import Collector, Response


class Landed(NamedTuple):
    """An outcome, and the Response with all that the engine said if the request had one."""

    outcome: Outcome
    response: Response | None = None


class Flight:
    """One request that is with the engine. Its chunks are gathered in the engine's thread.

    Args:
        watch: sees the chunks as they come.

    Attributes:
        key: of the request.
    """

    def __init__(self, key: str, ask: Ask, on_end: Callable[[Flight], None], watch: Watch | None = None) -> None:
        self.key, self.ask = key, ask
        self._on_end, self._watch = on_end, watch
        self._chunks: list[Chunk] = []
        self._remaining = num_answers(ask.request)
        self._ended = threading.Event()
        self._ticket: Ticket | None = None
        self._started = time.monotonic()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def is_broken_off(self) -> bool:
        """Whether it was cancelled before its end."""
        return not self.has_ended or any(chunk.finish_reason == "interrupted" for chunk in self._chunks)

    def start(self, engine: Engine) -> None:
        """Give it to the engine, behind what people wait for.

        Raises:
            NbllmError: the engine refuses it.
        """
        self._ticket = engine.submit(replace(self.ask.request, priority="batch"), self._take)

    def cancel(self) -> None:
        if self._ticket is None:  # interrupted while it was given to the engine, if it was
            self._ended.set()
        else:
            self._ticket.cancel()

    def wait(self, seconds: float) -> None:
        """For its end, which follows a cancel soon."""
        self._ended.wait(max(0.0, seconds))

    def landed(self, model_name: str) -> Landed:
        """What it came to, once it has ended."""
        request = self.ask.request
        if isinstance(request, GenerateRequest):
            collector = Collector(model_name, request.constraint)
            for chunk in self._chunks:
                collector.add(chunk)
            response = collector.response()
            return Landed(outcome_of_response(self.ask, response, cached=False), response)
        return Landed(self._numbers())

    def _take(self, chunk: Chunk) -> None:
        if self._ended.is_set():
            return
        self._chunks.append(chunk)
        if self._watch is not None:
            self._watch.grew(self.ask, chunk)
        self._remaining -= chunk.finish_reason is not None
        if self._remaining <= 0 or chunk.error is not None:
            self._ended.set()
            self._on_end(self)

    def _numbers(self) -> Outcome:
        for chunk in self._chunks:
            problem = _problem(chunk)
            if problem is not None:
                return Outcome(None, problem)
        duration_s = max(map(self._duration_s, self._chunks))
        if isinstance(self.ask.request, ChoiceRequest):
            by_index = {chunk.index: _logprob(chunk) for chunk in self._chunks}
            return Outcome(tuple(by_index[index] for index in sorted(by_index)), duration_s=duration_s)
        return Outcome(self._chunks[0].embedding, duration_s=duration_s)

    def _duration_s(self, chunk: Chunk) -> float:
        timings = chunk.timings
        measured = 0.0 if timings is None else timings.prefill_s + timings.decode_s
        return measured or time.monotonic() - self._started


def outcome_of_response(ask: Ask, response: Response, cached: bool) -> Outcome:
    """One row's answer; it is an error that it was cut before it had the form that it was asked for in."""
    error = _as_error(response.error)
    if error is not None:
        return Outcome(None, error)
    if response.finish_reason == "interrupted":
        return Outcome(None, EngineError("the request ended early; run again"))
    constraint = ask.request.constraint if isinstance(ask.request, GenerateRequest) else None
    if constraint is not None and response.finish_reason in ("length", "timeout"):
        what = "max_tokens" if response.finish_reason == "length" else "timeout"
        error = ConstraintError(f"the answer was cut by {what} before it had its form; give more, or ask for less")
    timings = response.timings
    plain = replace(response, tokens=(), text=well_formed(response.text), reasoning=well_formed(response.reasoning))
    return Outcome(plain, error, cached, timings.prefill_s + timings.decode_s)


def _problem(chunk: Chunk) -> NbllmError | None:
    if chunk.error is not None:
        return _as_error(chunk.error)
    if chunk.finish_reason == "timeout":
        return EngineError("the timeout passed before all was computed; give a longer timeout")
    return None if chunk.finish_reason in ("stop", None) else EngineError("the request ended early; run again")


def _as_error(error: BaseException | None) -> NbllmError | None:
    if error is None or isinstance(error, NbllmError):
        return error
    wrapped = EngineError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _logprob(chunk: Chunk) -> float:
    return sum(entry.logprob for entry in chunk.token_logprobs or ())
