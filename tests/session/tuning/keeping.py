"""A model that was tuned on this machine, without measuring anything."""

from __future__ import annotations

from pathlib import Path

from nbllm.config import Config
from nbllm.session.tuning.machine import this_machine
from nbllm.session.tuning.measurement import Measurement
from nbllm.session.tuning.record import Record, written
from nbllm.session.tuning.setting import Setting
from nbllm.store import model_hash
from nbllm.store.tunings import Place, tunings_folder


def keep(model: Path, config: Config, chosen: Setting, weights: bytes = b"GGUF", *, on: str = "") -> Place:
    """
    Args:
        weights: of the file in the format that was chosen.
        on: another machine.
    """
    place = Place.of(tunings_folder(config), model.stat().st_size, model_hash(model), on or this_machine().key)
    place.folder.mkdir(parents=True, exist_ok=True)
    measured = Measurement(chosen, size_bytes=len(weights))
    place.path.write_bytes(written(Record("toy", "here", False, (measured,), chosen)))
    if chosen.weights:
        place.weights(chosen.weights).write_bytes(weights)
    return place
