"""Models of the hub in the models folder: `models_dir/org/repo/file.gguf`."""

from __future__ import annotations

from pathlib import Path

from nbllm.config import Config
from nbllm.errors import ModelError
from nbllm.store.folder import folder_models
from nbllm.store.parts import model_files
from nbllm.store.remote.choice import RemoteFile, chosen
from nbllm.store.remote.names import HubName, checked_text, hub_name
from nbllm.store.remote.short_names import short_name


def pulled_path(name: str, config: Config, *, memory_bytes: int) -> Path | None:
    """The file of a model of the hub that is in the models folder, without asking the hub; None if it is not.

    Raises:
        ParameterError: `name` is not a name.
    """
    wanted = hub_model(name)
    if wanted is None:
        return None
    folder = hub_folder(config, wanted)
    try:
        found = [model_files(path) for path in folder_models(folder).values()]
        paths = [path for model in found if not model.missing for path in model.paths]
        files = [RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size, "") for path in paths]
        return folder / chosen(files, wanted, planned_memory(config, memory_bytes))[0].path
    except (ModelError, OSError):
        return None


def hub_model(name: str) -> HubName | None:
    """What a name means at the hub, also one of the shipped table; None for another. Raises ParameterError."""
    wanted = hub_name(name)
    if wanted is not None:
        return wanted
    entry = short_name(checked_text(name))
    return None if entry is None else entry.hub_name


def hub_folder(config: Config, wanted: HubName) -> Path:
    return config.models_dir.absolute() / wanted.owner / wanted.repo


def planned_memory(config: Config, memory_bytes: int) -> int:
    """What of the machine's memory a model may take that is chosen by it."""
    return int(memory_bytes * config.memory_fraction)
