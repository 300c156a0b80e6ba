"""A comparison, checked and ready to run: model by model, never two of them in memory unless that is asked for."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nbllm.core.flag import Flag
from nbllm.errors import NbllmError
from nbllm.frames.asks import Progress, RunOptions
from nbllm.frames.compare import manifest
from nbllm.frames.compare.building import Part, frame_of
from nbllm.frames.compare.cells import Cells
from nbllm.frames.compare.columns import ATTRS, VAR
from nbllm.frames.compare.contenders import Contender, hash_of
from nbllm.frames.compare.embedding import with_similarity
from nbllm.frames.compare.judging import Judge, judged
from nbllm.frames.compare.scorers import Scorer, scored
from nbllm.frames.progress import say
from nbllm.frames.run import run
from nbllm.session.model import Model

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Plan:
    """What `compare` was asked for.

    Attributes:
        inputs: what a manifest keeps of it.
        order: of the frame's rows: "model" or "input".
    """

    cells: Cells
    contenders: list[Contender]
    scorers: list[Scorer]
    judge: Judge | None
    inputs: dict[str, Any]
    order: str
    keep_loaded: bool

    @property
    def total(self) -> int:
        return len(self.cells) * len(self.contenders)

    def run(self, options: RunOptions, stop: Flag | None = None) -> pd.DataFrame:
        """Ask every model, score, and build the frame.

        Raises:
            KeyboardInterrupt: it was interrupted; what is finished is in the cache.
            NbllmError: with on_error="raise", the first.
        """
        return _Running(self, options, stop).frame()


@dataclass(slots=True)
class _Running:
    """One run of a plan."""

    plan: Plan
    options: RunOptions
    stop: Flag | None
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    entries: list[dict[str, Any]] = field(default_factory=list)

    def frame(self) -> pd.DataFrame:
        contenders = self.plan.contenders
        try:
            parts = [self._part(number) for number in range(len(contenders))]
            frame = self._scored(frame_of(parts, self.plan.cells, self.run_id))
        finally:
            for contender in contenders:
                self._done_with(contender)
        return self._finished(frame)

    def _part(self, number: int) -> Part:
        """One model's answers. The one before is closed first; the last stays open for what is scored with it."""
        plan, contender = self.plan, self.plan.contenders[number]
        watch = self.options.watch
        if number:
            self._done_with(plan.contenders[number - 1])
        if watch is not None:
            watch.began(contender.name, len(plan.cells))
        part = Part(contender.name, "")
        model = self._answered(part, number)
        if watch is not None:
            watch.ended(part.failure)
        part.load_s, part.finished_at = contender.load_s, datetime.now(UTC)
        error = part.failure or None
        self.entries.append(manifest.described(contender.name, contender.spec, model, part.model_hash, error))
        return part

    def _answered(self, part: Part, number: int) -> Model | None:
        """Ask one model, which is given back if there is one."""
        plan, contender = self.plan, self.plan.contenders[number]
        model = None
        try:
            model = contender.open()
            part.model_hash = hash_of(model)
            part.outcomes = run(model, plan.cells.asks(), len(plan.cells), self._options(number), stop=self.stop)
        except NbllmError as error:
            if self.options.on_error == "raise":
                raise
            part.error = f"{type(error).__name__}: {error}"
            if self.options.watch is None:
                say(f"{contender.name}: {error}")
        except KeyboardInterrupt:
            say(f"that was {contender.name}, model {number + 1} of {len(plan.contenders)}")
            raise
        return model

    def _scored(self, frame: pd.DataFrame) -> pd.DataFrame:
        plan = self.plan
        gold = plan.cells.gold() * len(plan.contenders)
        frame = scored(frame, plan.scorers, gold)
        progress = None if callable(self.options.progress) else self.options.progress
        quiet = replace(self.options, progress=progress, on_error="keep", watch=None)
        for scorer in [scorer for scorer in plan.scorers if scorer.measure is None]:
            frame = self._with_model(plan.contenders[-1], frame, self._similarity(frame, scorer, gold, quiet))
        if plan.judge is None:
            return frame
        return self._with_model(
            self._judge_contender(plan.judge), frame, self._verdicts(frame, plan.judge, gold, quiet)
        )

    def _with_model(
        self, contender: Contender, frame: pd.DataFrame, score: Callable[[Model], pd.DataFrame]
    ) -> pd.DataFrame:
        """The frame with a score that takes a model; without it when there is no such model, for that is no reason
        to lose the answers."""
        try:
            return score(contender.open())
        except NbllmError as error:
            if self.options.on_error == "raise":
                raise
            say(f"scores are missing: {contender.name}: {error}")
            return frame
        finally:
            if contender not in self.plan.contenders:  # those may be wanted once more, and are closed in the end
                self._done_with(contender)

    def _similarity(
        self, frame: pd.DataFrame, scorer: Scorer, gold: list[Any], options: RunOptions
    ) -> Callable[[Model], pd.DataFrame]:
        return lambda model: with_similarity(model, frame, scorer, gold, options, stop=self.stop)

    def _verdicts(
        self, frame: pd.DataFrame, judge: Judge, gold: list[Any], options: RunOptions
    ) -> Callable[[Model], pd.DataFrame]:
        return lambda model: judged(frame, judge, model, gold, options, stop=self.stop)

    def _judge_contender(self, judge: Judge) -> Contender:
        """The judge; without one of its own the last model, which may still be there."""
        last = self.plan.contenders[-1]
        if judge.model is None:
            return last
        self._done_with(last)
        name = judge.model.name if isinstance(judge.model, Model) else str(judge.model)
        return Contender(name, judge.model)

    def _done_with(self, contender: Contender) -> None:
        if not self.plan.keep_loaded:
            contender.close()

    def _options(self, number: int) -> RunOptions:
        """A bar is of one model; progress that a function is told of is that of the whole comparison."""
        report, name = self.options.progress, self.plan.contenders[number].name
        if not callable(report):
            return replace(self.options, label=name)
        return replace(self.options, progress=_shifted(report, number * len(self.plan.cells), self.plan.total))

    def _finished(self, frame: pd.DataFrame) -> pd.DataFrame:
        expected = self.plan.cells.expected
        if self.plan.order == "input":
            frame = frame.iloc[_interleaved(len(self.plan.cells), len(self.plan.contenders))].reset_index(drop=True)
        if self.options.on_error == "skip":
            frame = frame[frame["error"].isna()].reset_index(drop=True)
        frame.attrs[ATTRS] = {
            "format": manifest.FORMAT,
            "version": manifest.VERSION,
            "run_id": self.run_id,
            "created_at": self.created_at.isoformat(),
            "models": self.entries,
            "inputs": self.plan.inputs,
            "versions": manifest.versions(),
            "machine": manifest.machine(),
            "expected": None if expected is None else VAR + expected.column,
        }
        return frame


def _interleaved(num_cells: int, num_models: int) -> list[int]:
    """The numbers of rows that lie model by model, in the order that has what the models say to a cell together."""
    return [model * num_cells + cell for cell in range(num_cells) for model in range(num_models)]


def _shifted(report: Progress, before: int, total: int) -> Progress:
    return lambda done, _: report(before + done, total)
