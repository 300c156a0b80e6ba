"""Which settings are measured, in which order, and which one is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nbllm.core import ModelInfo
from nbllm.errors import NbllmError
from nbllm.session.tuning.candidates import formats, groups
from nbllm.session.tuning.lab import Lab
from nbllm.session.tuning.measurement import Measurement
from nbllm.session.tuning.record import Record
from nbllm.session.tuning.setting import Setting
from nbllm.store.tunings import Place

GAIN, CLEAR_GAIN = 1.03, 1.25
"""What is no faster than the first is not chosen: it may be noise, and the simpler setting goes before. What is between
the two is if each of its runs was faster than the other's usual one."""
_ROUNDS = 3
"""Processes that each finalist is measured in, the finalists in turn: a machine is not equally fast all the time."""
_FINALISTS = 3
_NEAR = 0.7
"""Of the best's speed: what is slower than this is no finalist, and a single run is off by no more on most days."""
_PLAIN = Setting()


@dataclass(frozen=True, slots=True)
class Step:
    """What a tuner is doing.

    Attributes:
        num_done, num_steps: measurements; their whole number is an estimate.
        text: for a person.
        share: of the measurement that is being made, from 0 to 1; a rough one.
    """

    num_done: int
    num_steps: int
    text: str
    share: float = 0.0


@dataclass(slots=True)
class Tuner:
    """Measures what is not yet in the record. After every measurement the record is handed to `keep`.

    Args:
        place: where files in other formats are written.
        max_divergence: of what may be chosen, in nats a token.
    """

    model: ModelInfo
    cores: int
    lab: Lab
    place: Place
    record: Record
    max_divergence: float
    keep: Callable[[Record], None]
    tell: Callable[[Step], None]
    num_done: int = 0

    def run(self) -> Setting:
        """Measure, and choose.

        Raises:
            NbllmError: the model as it is cannot be measured.
        """
        self.record = replace(self.record, measured=tuple(one for one in self.record.measured if not one.problem))
        self._measured(_PLAIN)
        for kind in formats(self.model):
            self._measured(Setting(weights=kind))
        for group in groups(self.cores, on_gpu=self.record.on_gpu):
            for setting in group(self.best()):
                self._measured(setting)
        for num_runs in range(2, _ROUNDS + 1):
            for setting in self._finalists():
                self._measured(setting, num_runs)
        chosen = self.best()
        self._file(chosen)  # an earlier tuning that chose another has removed it
        self._keep(replace(self.record, chosen=chosen))
        return chosen

    def best(self) -> Setting:
        """The fastest for eight sequences of those that are allowed; of nearly equal ones the first."""
        best: Measurement | None = None
        for one in self.record.measured:
            if one.is_allowed(self.max_divergence) and (best is None or _is_faster(one, best)):
                best = one
        return best.setting if best is not None else _PLAIN

    def _finalists(self) -> list[Setting]:
        """The model as it is, which the others are compared with, and the fastest of those."""
        allowed = [one for one in self.record.measured if one.is_allowed(self.max_divergence)]
        allowed.sort(key=lambda one: one.speeds.decode_8, reverse=True)
        near = [one for one in allowed if one.speeds.decode_8 > _NEAR * allowed[0].speeds.decode_8]
        return list(dict.fromkeys([_PLAIN, *(one.setting for one in near[:_FINALISTS])]))

    @property
    def _num_steps(self) -> int:
        varied = sum(len(group(_PLAIN)) for group in groups(self.cores, on_gpu=self.record.on_gpu))
        return 1 + len(formats(self.model)) + varied + (_ROUNDS - 1) * (1 + _FINALISTS)

    def _measured(self, setting: Setting, num_runs: int = 1) -> None:
        known = self.record.of(setting)
        while known is None or (not known.problem and len(known.runs) < num_runs):
            known = self._again(known or Measurement(setting))
            self._keep(self.record.with_measured(known))
        self.num_done += 1
        if known.problem and setting == _PLAIN:
            raise NbllmError(f"{self.model.name} cannot be measured: {known.problem}")

    def _again(self, known: Measurement) -> Measurement:
        """One more run; what fails is a measurement that says so."""
        try:
            path = self._file(known.setting)
            known = replace(known, size_bytes=_size(path) if known.setting.weights else self.model.size_bytes)
            if known.divergence is None:
                known = replace(known, divergence=self._divergence(known.setting, path))
            self._say(known.setting, "measuring", 0.4)
            run = self.lab.speeds(path, known.setting.options)
            self.record = replace(self.record, on_gpu=self.lab.on_gpu)
            return known.with_run(run)
        except (NbllmError, OSError) as error:
            return replace(known, runs=(), problem=" ".join(str(error).split())[:300])

    def _file(self, setting: Setting) -> Path:
        if not setting.weights:
            return Path(self.model.path)
        path = self.place.weights(setting.weights)
        if not path.exists():
            self.lab.made(setting.weights, path, lambda done, total: self._say(setting, "writing", 0.2 * done / total))
        return path

    def _divergence(self, setting: Setting, path: Path) -> float:
        """Threads, batches and flash attention only round otherwise."""
        alike = [one for one in self.record.measured if _computes_like(one.setting, setting)]
        known = next((one.divergence for one in alike if one.divergence is not None), None)
        if known is not None:
            return known
        if not setting.weights and setting.kv_type is None:
            return 0.0
        self._say(setting, "comparing", 0.2)
        return self.lab.divergence(path, setting.kv_type or "f16")

    def _say(self, setting: Setting, verb: str, share: float) -> None:
        text = f"{verb} {setting.label(self.model.quantization)}"
        self.tell(Step(self.num_done, max(self._num_steps, self.num_done + 1), text, share))

    def _keep(self, record: Record) -> None:
        self.record = record
        self.keep(record)


def _is_faster(one: Measurement, other: Measurement) -> bool:
    usual = other.speeds.decode_8
    gain, worst = one.speeds.decode_8 / usual, min(run.decode_8 for run in one.runs)
    return gain > CLEAR_GAIN or (gain > GAIN and worst > usual)


def _computes_like(one: Setting, other: Setting) -> bool:
    return (one.weights, one.kv_type) == (other.weights, other.kv_type)


def _size(path: Path) -> int:
    return path.stat().st_size
