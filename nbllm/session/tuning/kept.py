"""What was chosen for a model on this machine, which loading it then uses."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.store.tunings import Place, size_of, tuned_place, tunings_folder

if TYPE_CHECKING:  # loading any model asks here, and few are tuned
    from nbllm.config import Config
    from nbllm.session.tuning.setting import Setting

_ATTENTION = {"flash_attention", "kv_type"}
_logger = logging.getLogger("nbllm")


@dataclass(frozen=True, slots=True)
class Tuned:
    """How to load a model that was tuned here.

    Attributes:
        source: the model's own file.
        path: the file to load: the source, or the same model in another format.
        options: of `nbllm.load`.
        note: for a person.
    """

    source: Path
    path: Path
    options: Mapping[str, Any]
    note: str

    def options_beside(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those that hold beside the ones that are given. A KV type and flash attention go together, or not at all."""
        taken = {name for name, value in given.items() if value is not None}
        if taken & _ATTENTION:
            taken |= _ATTENTION
        return {name: value for name, value in self.options.items() if name not in taken}


def tuned(path: str | os.PathLike[str], config: Config) -> Tuned | None:
    """What `%llm tune` has chosen for this file on this machine; None if it was not tuned, or best as it is.

    A file is read only if one of its size was tuned here. Never raises: a record that is damaged counts as none.
    """
    place = _place(Path(path), config)
    if place is None:
        return None
    from nbllm.session.tuning import record
    from nbllm.session.tuning.setting import Setting

    kept = record.read(place.path)
    if kept is None or kept.chosen is None or kept.chosen == Setting():
        return None
    chosen = kept.chosen
    weights = place.weights(chosen.weights) if chosen.weights else Path(path)
    measured = kept.of(chosen)
    if measured is None or (chosen.weights and size_of(weights) != measured.size_bytes):
        _warn(os.fspath(path), weights)
        return None
    parts = [chosen.weights, *(f"{name}={value}" for name, value in chosen.options.items())]
    return Tuned(Path(path), weights, chosen.options, f"tuned for this machine: {', '.join(filter(None, parts))}")


def forget(place: Place) -> list[Path]:
    """Remove what is kept of a model for this machine, and the files that no other machine's record has chosen.

    Returns what was removed.
    """
    return [one for one in (place.path, *unused_weights(place, but=None)) if _removed(one)]


def unused_weights(place: Place, *, but: Setting | None) -> list[Path]:
    """The model's files in other formats that no machine needs.

    Args:
        but: what this machine needs, None for nothing.
    """
    from nbllm.session.tuning import record

    needed = {but.weights} if but is not None else set()
    for path in place.all_paths:
        kept = record.read(path) if path != place.path else None
        if kept is not None and kept.chosen is not None:
            needed.add(kept.chosen.weights)
    wanted = {place.weights(kind) for kind in needed}
    return [one for one in place.all_weights if one not in wanted]


def _place(path: Path, config: Config) -> Place | None:
    """Where the record of this file is, if there may be one; what that takes is imported where something was tuned."""
    if not tunings_folder(config).is_dir():
        return None
    from nbllm.session.tuning.machine import this_machine

    return tuned_place(path, config, machine=this_machine().key)


@functools.cache
def _warn(path: str, weights: Path) -> None:
    """Once: a server asks for every request."""
    _logger.warning("%s was tuned, but %s is not there any more: run %%llm tune again", path, weights)


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
