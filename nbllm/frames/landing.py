"""What an engine's chunks come to: one row's outcome."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from nbllm.core import ChoiceRequest, Chunk, GenerateRequest
from nbllm.core.flag import Flag
from nbllm.engine.interface import Engine, Ticket, num_answers
from nbllm.errors import ConstraintError, EngineError, NbllmError
from nbllm.frames.asks import Ask, Outcome, Watch
from nbllm.frames.dtypes import well_formed
from nbllm.session.response import Collector, Response


class MisfitError(ConstraintError):
    """An answer is whole, and has the form that was asked for, but the columns have no place for a value of it."""


def of_row(name: str, error: NbllmError) -> NbllmError:
    """A copy of the error that says which row it is of; the engine may raise the same one again. "" names no row."""
    if not name:
        return error
    named = copy.copy(error)
    named.args = (f"{name}: {error}",)
    named.__cause__ = error.__cause__
    return named.with_traceback(error.__traceback__)


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
        self._ended = Flag()
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
        try:
            self._ticket = engine.submit(replace(self.ask.request, priority="batch"), self._take)
        except NbllmError as error:
            raise of_row(self.ask.name, error) from error.__cause__

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
        return Landed(_told(self.ask, self._numbers()))

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
    return _told(ask, _outcome(ask, response, cached))


def _outcome(ask: Ask, response: Response, cached: bool) -> Outcome:
    error = _as_error(response.error)
    if error is not None:
        return Outcome(None, error)
    if response.finish_reason == "interrupted":
        return Outcome(None, EngineError("the request ended early; run again"))
    timings = response.timings
    plain = replace(response, tokens=(), text=well_formed(response.text), reasoning=well_formed(response.reasoning))
    return Outcome(plain, _formless(ask, response), cached, timings.prefill_s + timings.decode_s)


def _formless(ask: Ask, response: Response) -> NbllmError | None:
    """Why an answer that is there is none of the form that was asked for."""
    request = ask.request
    if isinstance(request, GenerateRequest) and request.constraint is not None:
        if response.finish_reason == "timeout":
            return ConstraintError("the answer was cut by timeout, before it had its form; give a longer timeout=")
        if response.finish_reason == "length":
            return ConstraintError(_too_short(request.sampling.max_tokens, response.usage.completion_tokens))
    misfit = None if ask.misfit is None else ask.misfit(response)
    return None if misfit is None else MisfitError(misfit)


def _too_short(max_tokens: int | None, num_tokens: int) -> str:
    if max_tokens is None or 0 < num_tokens < max_tokens:
        return "the answer was cut where the context was full, before it had its form; load with more context_length="
    return f"the answer was cut at {max_tokens:,} tokens, before it had its form; give a larger max_tokens="


def _told(ask: Ask, outcome: Outcome) -> Outcome:
    return outcome if outcome.error is None else replace(outcome, error=of_row(ask.name, outcome.error))


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
