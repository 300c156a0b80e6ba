"""The files that `%llm tune` keeps of a model, in a folder of the models folder.

    models_dir/.tuned/<bytes of the model>-<16 hex of its hash>-<8 hex of the machine>.toml
    models_dir/.tuned/<16 hex of its hash>-Q8_0.gguf

Whether a model was tuned is told by its size first, so that none is hashed that never was.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nbllm.config import Config
from nbllm.errors import ModelLoadError
from nbllm.store.hashes import model_hash
from nbllm.store.parts import model_files

_FOLDER = ".tuned"
_SUFFIX = ".toml"
_HASH_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tuning of one model on one machine is kept."""

    folder: Path
    size_bytes: int
    short_hash: str
    machine: str

    @classmethod
    def of(cls, folder: Path, size_bytes: int, model_hash: str, machine: str) -> Place:
        return cls(folder, size_bytes, model_hash[:_HASH_LENGTH], machine)

    @property
    def path(self) -> Path:
        """The record of what was measured."""
        return self.folder / f"{self.size_bytes}-{self.short_hash}-{self.machine}{_SUFFIX}"

    def weights(self, kind: str) -> Path:
        """The model's file in another format."""
        return self.folder / f"{self.short_hash}-{kind}.gguf"

    @property
    def all_paths(self) -> list[Path]:
        """The records of every machine that has tuned the model."""
        return sorted(self.folder.glob(f"{self.size_bytes}-{self.short_hash}-*{_SUFFIX}"))

    @property
    def all_weights(self) -> list[Path]:
        """The model's files in other formats, unfinished ones too."""
        return sorted(self.folder.glob(f"{self.short_hash}-*.gguf*"))


def tunings_folder(config: Config) -> Path:
    return config.models_dir.absolute() / _FOLDER


def tuned_place(model: Path, config: Config, *, machine: str = "") -> Place | None:
    """Where a tuning of the model is kept, if one may be; a file is read only if one of its size was tuned.

    Args:
        machine: only if it was tuned there; "" is any.
    """
    folder, size = tunings_folder(config), model_size(model)
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    ending = f"-{machine}{_SUFFIX}" if machine else _SUFFIX
    if not any(name.startswith(f"{size}-") and name.endswith(ending) for name in names):
        return None
    try:
        return Place.of(folder, size, model_hash(model), machine)
    except ModelLoadError:
        return None


def tuned_files(model: Path, config: Config, others: Iterable[Path] = ()) -> list[Path]:
    """All that is kept of a model's tuning, on whatever machine; nothing if one of the others is the same model."""
    place = tuned_place(model, config)
    if place is None or any(
        model_size(other) == place.size_bytes and tuned_place(other, config) == place for other in others
    ):
        return []
    return [*place.all_paths, *place.all_weights]


def model_size(path: Path) -> int:
    """Of all parts of a model; what cannot be read has none."""
    return sum(size_of(part) for part in model_files(path).paths)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
