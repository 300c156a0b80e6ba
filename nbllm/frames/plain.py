"""`nbllm.map`: a prompt for each value of a list, for people without a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.core.flag import Flag
from nbllm.errors import NbllmError, ParameterError, in_one_line
from nbllm.frames.asks import Ask, Outcome, RunOptions
from nbllm.frames.interrupts import calm_interrupts
from nbllm.frames.jobs import in_background
from nbllm.frames.landing import of_row
from nbllm.frames.run import run
from nbllm.frames.templates import RowTemplate
from nbllm.frames.using import model_of
from nbllm.frames.verbs.mapping import Answer, shaped
from nbllm.frames.verbs.plan import Shots
from nbllm.frames.verbs.result import tell_of_skipped
from nbllm.frames.verbs.settings import Settings
from nbllm.session.response import Response

_VALUE = ""
_FRAME_ONLY = ("details", "examples", "overwrite")


def map(values: Iterable[Any], prompt: str, **options: Any) -> Any:
    """Ask a prompt about each value, all together; equal ones are asked once, and kept in the cache.

    Args:
        values: texts, numbers, or dicts that all have the same keys.
        prompt: with `{}` where the value goes, or `{key}` for values that are dicts.
        options: those of `df.llm.map`, apart from what only a frame has room for.

    Returns:
        A list of the answers in the order of the values: texts, or what `response_format` makes of them. None where
        the value was None or NaN, where it failed (on_error="keep"), or beyond `limit`; on_error="skip" leaves those
        that failed out. With background=True a Job that will have the list.

    Raises:
        ParameterError: an option is unknown, or the prompt names a key that the values lack.
        KeyboardInterrupt: it was interrupted; run again, and it goes on where it was.
    """
    with calm_interrupts():
        task = _Task.of(values, prompt, options)
        if task.settings.run.background:
            return in_background(task.settings.run, task.done, len(task.rows))
        return task.done(task.settings.run)


async def amap(values: Iterable[Any], prompt: str, **options: Any) -> Any:
    """`map` that leaves the event loop free; cancelling the task ends the run, and what is finished is in the cache."""
    with calm_interrupts():
        task = _Task.of(values, prompt, options)
        if task.settings.run.background:
            return in_background(task.settings.run, task.done, len(task.rows))
        return await _in_thread(task)


async def _in_thread(task: _Task) -> list[Any]:
    import asyncio

    stop = Flag()
    try:
        return await asyncio.to_thread(task.done, task.settings.run, stop)
    except asyncio.CancelledError as cancelled:
        in_one_line(cancelled, "the run was cancelled; what is finished is in the cache")
        raise
    finally:
        stop.set()


@dataclass(frozen=True, slots=True)
class _Task:
    rows: Sequence[Mapping[str, Any]]
    template: RowTemplate
    settings: Settings
    answer: Answer

    @classmethod
    def of(cls, values: Iterable[Any], prompt: str, options: Mapping[str, Any]) -> _Task:
        if hasattr(values, "iloc") and hasattr(values, "columns"):
            raise ParameterError("values", "is a DataFrame; use df.llm.map, whose prompt names columns: {column}")
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise ParameterError("values", f"must be a list of values, not {type(values).__name__}")
        for name in _FRAME_ONLY:
            if name in options:
                raise ParameterError(name, "is for tables; put the list into a Series, whose .llm.map has it")
        rows = [value if isinstance(value, Mapping) else {_VALUE: value} for value in values]
        settings, answer = shaped(options)
        template = RowTemplate(prompt, _keys(rows))
        if rows and not template.names:
            raise ParameterError("prompt", "has no place for the value, so that all would ask the same; write {}")
        return cls(rows, template, settings, answer)

    def done(self, options: RunOptions, stop: Flag | None = None) -> list[Any]:
        if all(
            self.template.render(row) is None
            for row in self.rows[: len(self.rows) if options.limit is None else int(options.limit)]
        ):
            return [None] * len(self.rows)
        asks = self._asks(are_named=options.on_error == "raise")
        outcomes = run(model_of(self.settings.model), asks, len(self.rows), options, stop=stop)
        if options.on_error == "skip":
            _tell_of_skipped(outcomes)
            outcomes = [outcome for outcome in outcomes if not _has_failed(outcome)]
        return [self._value(outcome) for outcome in outcomes]

    def _asks(self, *, are_named: bool) -> Iterator[Ask | NbllmError | None]:
        shots = Shots(self.settings)
        for place, row in enumerate(self.rows):
            name = _name(place) if are_named else ""
            try:
                text = self.template.render(row)
                yield None if text is None else Ask(shots.ask(text), self.answer.misfit, name)
            except NbllmError as error:
                yield of_row(name, error)

    def _value(self, outcome: Outcome | None) -> Any:
        if outcome is None or outcome.error is not None or not isinstance(outcome.value, Response):
            return None
        return self.answer.read(outcome.value)


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of all rows, which must have the same ones: a typing error in one must not pass as a missing value."""
    first = list(rows[0]) if rows else [_VALUE]
    for place, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise ParameterError("values", f"number {place} has other keys than number 0: {list(row)!r:.100}")
    return first


def _tell_of_skipped(outcomes: Sequence[Outcome | None]) -> None:
    failed = [(place, outcome) for place, outcome in enumerate(outcomes) if _has_failed(outcome)]
    if failed:
        place, outcome = failed[0]
        tell_of_skipped(len(failed), len(outcomes), _name(place), str(outcome and outcome.error))


def _name(place: int) -> str:
    return f"number {place:,}"


def _has_failed(outcome: Outcome | None) -> bool:
    return outcome is not None and (outcome.error is not None or outcome.value is None)
