"""Every model that has a name on this machine, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nbllm.config import Config
from nbllm.store.bundled import bundled_models
from nbllm.store.folder import folder_models
from nbllm.store.foreign import PREFIXES, store_models

_SUFFIX = ".gguf"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model's file.

    Attributes:
        source: "bundled", "nbllm" (the models folder), "folder" (another one of the settings), or a foreign store.
        problem: why the file must not be read; "" when only its header can tell whether it is usable.
    """

    path: Path
    source: str
    problem: str = ""


def known_models(config: Config) -> dict[str, KnownModel]:
    """By the shortest name that means it and no other.

    Of one name, the bundled model goes first, then the models folder, then the other folders of the settings, then the
    foreign stores, whose models are then named with the store's prefix.
    """
    models = {name: KnownModel(path, "bundled") for name, path in bundled_models().items()}
    models |= _in_folders(config, models)
    taken, here = {_plain(name) for name in models}, {known.path for known in models.values()}
    for store in config.foreign_stores:
        for name, entry in store_models(store, config).items():
            if entry.path in here:  # the settings name the store's folder too
                continue
            short = f"{PREFIXES[store]}:{name}"
            if store != "huggingface" and _plain(name) not in taken:  # a hub's name is never without its prefix
                short = name
            taken.add(_plain(short))
            models[short] = KnownModel(entry.path, store, entry.problem)
    return models


def _in_folders(config: Config, bundled: dict[str, KnownModel]) -> dict[str, KnownModel]:
    files: dict[str, KnownModel] = {}
    folders = [(config.models_dir, "nbllm"), *((folder, "folder") for folder in config.models_dirs)]
    for folder, source in folders:
        found = {name: KnownModel(path.absolute(), source) for name, path in folder_models(folder).items()}
        files = found | files  # a name in an earlier folder stays
    models = {}
    for full, known in files.items():
        short = full.removesuffix(_SUFFIX)
        models[full if short in bundled or short in files else short] = known
    return models


def _plain(name: str) -> str:
    """What two names that could be taken for each other have in common."""
    return name.casefold().removesuffix(_SUFFIX).removesuffix(":latest")
