"""From a name to a model's file in the models folder: `models_dir/org/repo/file.gguf`."""

from __future__ import annotations

from pathlib import Path

from nbllm.config import Config
from nbllm.errors import ModelError, ModelNotFoundError
from nbllm.store.folder import folder_models
from nbllm.store.header import shown
from nbllm.store.parts import model_files
from nbllm.store.pulling.choice import RemoteFile, chosen
from nbllm.store.pulling.download import Download, fetch_all, unwritable
from nbllm.store.pulling.hub import Hub
from nbllm.store.pulling.lock import locked
from nbllm.store.pulling.names import HubName, checked_text, hub_name
from nbllm.store.pulling.progress import OnProgress, PullProgress, ignored
from nbllm.store.pulling.short_names import closest, short_name


def pull(name: str, *, config: Config, memory_bytes: int, on_progress: OnProgress | None = None) -> Path:
    """Get a model from the hub, with all its parts and its projector; what is here already is not got again.

    Args:
        memory_bytes: of the machine, of which `config.memory_fraction` is planned with where the name leaves the
            quantization open; `nbllm.store.foreign.total_memory` tells it.

    Raises:
        ParameterError: `name` is not a name, or a setting of the hub cannot be used.
        ModelNotFoundError: a short name that the table does not have.
        PullError: it could not be got; the message says what to do.
        InsufficientMemoryError: no quantization fits into the memory.
    """
    wanted = wanted_model(name)
    report = ignored if on_progress is None else on_progress
    report(PullProgress(status="resolving"))
    hub = Hub()
    commit, listed = hub.files(wanted)
    files = chosen(listed, wanted, _planned(config, memory_bytes))
    folder = _folder(config, wanted) / files[0].folder
    downloads = [
        Download(folder / file.name, file.size, file.sha256, hub.opener(wanted, commit, file)) for file in files
    ]
    try:
        with locked(
            folder,
            config.models_dir.absolute(),
            on_wait=lambda: report(PullProgress(status="waiting", file=files[0].name)),
        ):
            fetch_all(downloads, report)
    except OSError as exc:
        raise unwritable(exc, downloads) from exc
    report(PullProgress(status="done", file=files[0].name, sha256=files[0].sha256))
    return downloads[0].target


def pulled_path(name: str, config: Config, *, memory_bytes: int) -> Path | None:
    """The file of a model of the hub that is in the models folder, without asking the hub; None if it is not.

    Raises:
        ParameterError: `name` is not a name.
    """
    try:
        wanted = wanted_model(name)
        folder = _folder(config, wanted)
        found = [model_files(path) for path in folder_models(folder).values()]
        paths = [path for model in found if not model.missing for path in model.paths]
        files = [RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size, "") for path in paths]
        return folder / chosen(files, wanted, _planned(config, memory_bytes))[0].path
    except (ModelError, OSError):
        return None


def wanted_model(name: str) -> HubName:
    """What a name means at the hub.

    Raises:
        ParameterError: `name` is not a name.
        ModelNotFoundError: a short name that the table does not have.
    """
    wanted = hub_name(name)
    if wanted is not None:
        return wanted
    text = checked_text(name)
    entry = short_name(text)
    if entry is None:
        meant = f"the closest names: {', '.join(close)}; " if (close := closest(text)) else ""
        raise ModelNotFoundError(
            f"no model {shown(text)!r} to pull: {meant}any other GGUF of the hub is hf:org/repo or hf:org/repo:Q4_K_M"
        )
    return entry.hub_name


def _folder(config: Config, wanted: HubName) -> Path:
    return config.models_dir.absolute() / wanted.owner / wanted.repo


def _planned(config: Config, memory_bytes: int) -> int:
    return int(memory_bytes * config.memory_fraction)
