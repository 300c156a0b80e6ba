"""`%llm tune` and `jupyter nbllm tune`, from what was typed to what is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nbllm.config import Config
from nbllm.core import ModelInfo
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.session.tuning import record
from nbllm.session.tuning.kept import forget, unused_weights
from nbllm.session.tuning.lab import Lab, ProcessLab
from nbllm.session.tuning.machine import Machine, this_machine
from nbllm.session.tuning.record import Record
from nbllm.session.tuning.setting import Setting
from nbllm.session.tuning.table import Table
from nbllm.session.tuning.tuner import Step, Tuner
from nbllm.session.tuning.wish import Wish
from nbllm.store import model_hash
from nbllm.store.files import replace_file
from nbllm.store.pulling.lock import locked
from nbllm.store.tunings import Place, tunings_folder

_BUSY = """
Other programs were computing meanwhile, so take the speeds with care: tune again when it is quiet, after --forget"""

LabOf = Callable[[ModelInfo, Config, int], Lab]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Attributes:
    table: None where there is nothing to show.
    text: what was chosen or done, in a sentence.
    """

    table: Table | None
    text: str


class Tuning:
    """One run of `tune`. What was measured so far is in `table`, also after an interrupt."""

    def __init__(self, wish: Wish, model: ModelInfo, config: Config, *, lab_of: LabOf = ProcessLab) -> None:
        self._wish, self._model, self._config, self._lab_of = wish, model, config, lab_of
        self._machine: Machine = this_machine()
        self._record = Record()

    @property
    def table(self) -> Table:
        return Table(self._record.measured, self._record.chosen, self._model.quantization)

    def run(self, tell: Callable[[Step], None]) -> Outcome:
        """Do what was wished.

        Raises:
            InvalidRequestError: another process tunes on this machine.
            NbllmError: the model as it is cannot be measured.
            KeyboardInterrupt: what was measured is kept.
        """
        folder = tunings_folder(self._config)
        if self._wish.forgets and not folder.is_dir():
            return Outcome(None, f"nothing was kept of {self._model.name}")
        tell(Step(0, 1, f"reading {self._model.name}"))
        digest = model_hash(self._model.path)
        try:
            with locked(folder, self._config.models_dir.absolute(), _refuse), self._desk(folder) as desk:
                place = Place.of(desk, self._model.size_bytes, digest, self._machine.key)
                if self._wish.forgets:
                    return self._forgotten(place)
                return self._tuned(place, tell)
        except OSError as error:
            raise ParameterError("models_dir", f"{error.filename or folder}: {error.strerror or error}") from error

    @contextmanager
    def _desk(self, folder: Path) -> Iterator[Path]:
        """Where files are written: for good, or in a folder that goes with all that is in it."""
        if self._wish.keeps:
            yield folder
        else:
            with tempfile.TemporaryDirectory(prefix="dry-", dir=folder) as desk:
                yield Path(desk)

    def _tuned(self, place: Place, tell: Callable[[Step], None]) -> Outcome:
        known = record.read(place.path) or Record()
        self._record = replace(known, model=self._model.name, machine=str(self._machine))
        lab = self._lab_of(self._model, self._config, self._machine.cores)
        limit = self._wish.max_divergence

        def keep(changed: Record) -> None:
            self._record = changed
            replace_file(place.path, record.written(changed), prefix=place.path.name)

        chosen = Tuner(self._model, self._machine.cores, lab, place, self._record, limit, keep, tell).run()
        for path in unused_weights(place, but=chosen):
            with suppress(OSError):
                path.unlink()
        busy = _BUSY if lab.num_busy else ""
        return Outcome(self.table, self._said(chosen) + busy)

    def _forgotten(self, place: Place) -> Outcome:
        try:
            removed = forget(place)
        except OSError as error:
            raise InvalidRequestError(
                f"{error.filename} cannot be removed ({error.strerror}): first unload {self._model.name} everywhere"
            ) from error
        name = self._model.name
        if not removed:
            return Outcome(None, f"nothing was kept of {name}")
        files = ", ".join(path.name for path in removed)
        return Outcome(None, f"{name} is loaded as it is from now on; removed {files}")

    def _said(self, chosen: Setting) -> str:
        name, limit = self._model.name, self._wish.max_divergence
        if chosen == Setting():
            return f"{name} is best as it is: nothing with a divergence of at most {limit:g} is faster"
        before, after = self._record.of(Setting()), self._record.of(chosen)
        assert before is not None  # both were measured, or nothing else would have been chosen
        assert after is not None
        ratio = after.speeds.decode_8 / before.speeds.decode_8
        gain = f"{ratio:.2f} times as fast for 8 answers side by side, at {after.divergence:.4f} nats a token from it"
        label = chosen.label(self._model.quantization)
        if not self._wish.keeps:
            return f"{label} would be chosen: {gain}; nothing was kept"
        return f"{label} is used from the next load of {name} on: {gain}"


def _refuse() -> None:
    raise InvalidRequestError("another tune is under way on this machine, and two would slow each other: wait for it")
