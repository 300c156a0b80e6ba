"""What a person means by a model's name: a file, and the preset to ask it with if the name is one's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.core.presets import Preset
from nbllm.errors import ModelNotFoundError
from nbllm.session.tuning.kept import Tuned, tuned
from nbllm.store import resolve
from nbllm.store.catalog import described

if TYPE_CHECKING:
    from nbllm.config import Config
    from nbllm.session.model import Model


@dataclass(frozen=True, slots=True)
class Named:
    """A model by its name.

    Attributes:
        name: what `nbllm.load` takes for it.
        path: the file; the one to load for it where the model was tuned.
        base: what `nbllm.load` takes for the file without the preset.
        preset: what requests get; None for a model that is no preset.
        saved: the preset as it is kept, with those that it is made of merged in; None for one that has no name.
        tuned: what `%llm tune` has chosen for the model on this machine, if anything.
    """

    name: str
    path: str
    base: str
    preset: Preset | None = None
    saved: Preset | None = None
    tuned: Tuned | None = None

    @property
    def real_path(self) -> str:
        """The file, by which two names are told to mean the same one."""
        return os.path.realpath(self.path)

    @property
    def load_options(self) -> dict[str, Any]:
        """The options of `nbllm.load` that the preset has."""
        if self.preset is None:
            return {}
        given = {"context_length": self._context_length(self.preset), "threads": self.preset.threads}
        return {name: value for name, value in given.items() if value is not None}

    def _context_length(self, preset: Preset) -> int | None:
        """No more than the model has learnt: a Modelfile that many models share may well ask for more."""
        if preset.context_length is None:
            return None
        learnt = described(Path(self.path)).context_length
        return min(preset.context_length, learnt) if learnt else preset.context_length

    def among(self, models: Sequence[Model]) -> Model | None:
        """The last one of this file and preset, with whatever options it was loaded."""
        wanted = self.real_path
        for model in reversed(models):
            path = model.info.model.path
            if model.preset == self.preset and path and os.path.realpath(path) == wanted:
                return model
        return None

    def is_outdated_by(self, newer: Named) -> bool:
        """Whether the newer one is of the same preset, which has been changed in between."""
        return self.saved is not None and self.name == newer.name and self.saved != newer.saved


def named(model: str | os.PathLike[str] | None, config: Config) -> Named:
    """Find what a name, an alias or a path means. None is the configured default.

    Raises:
        ModelNotFoundError: no such model, or the preset's base or an adapter is gone; the message says what to do.
        ParameterError: it is not a name at all; or aliases or presets mean each other.
        ModelLoadError, InsufficientMemoryError: as of `nbllm.store.resolve`.
    """
    from nbllm.store.presets import shelf

    wanted = meant(model, config)
    preset = shelf.find(wanted, config) if isinstance(wanted, str) else None
    if preset is None:
        path = str(_resolved(wanted, config))
        return _as_tuned(Named(os.fspath(wanted), path, os.fspath(wanted)), config)
    found = shelf.flattened(preset, config)
    base = config.unaliased(found.preset.base)
    return _as_tuned(Named(preset.name, str(found.path), base, found.preset, found.preset), config)


def _resolved(wanted: str | os.PathLike[str], config: Config) -> Path:
    """Of what is no preset; one whose name is close may have been meant, though."""
    import difflib

    from nbllm.store.presets import shelf

    try:
        return resolve(wanted, config)
    except ModelNotFoundError as exc:
        close = difflib.get_close_matches(os.fspath(wanted)[:200], shelf.entries(config), n=1)
        if not close:
            raise
        raise ModelNotFoundError(f"{exc}; there is a preset {close[0]}") from exc.__cause__


def meant(model: str | os.PathLike[str] | None, config: Config) -> str | os.PathLike[str]:
    """What the settings make of a name: the default of none, and what an alias stands for."""
    wanted = config.default_model if model is None else model
    return config.unaliased(wanted) if isinstance(wanted, str) else wanted


def _as_tuned(found: Named, config: Config) -> Named:
    chosen = tuned(found.path, config)
    return found if chosen is None else replace(found, path=str(chosen.path), tuned=chosen)
