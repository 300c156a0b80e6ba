"""From a name to a model's file in the models folder: `models_dir/org/repo/file.gguf`, or a preset's blob."""

from __future__ import annotations

import re
from pathlib import Path

from nbllm.config import Config
from nbllm.errors import ModelNotFoundError
from nbllm.store.pulling.download import Download, fetch_all, unwritable
from nbllm.store.pulling.hub import Hub
from nbllm.store.pulling.lock import locked
from nbllm.store.pulling.progress import OnProgress, PullProgress, ignored
from nbllm.store.pulling.registry_names import RegistryName, registry_name
from nbllm.store.remote.choice import RemoteFile, chosen
from nbllm.store.remote.errors import PullError
from nbllm.store.remote.names import HubName, checked_text
from nbllm.store.remote.pulled import hub_folder, hub_model, planned_memory
from nbllm.store.remote.short_names import no_model

_PAGE = re.compile(r"(?:https?://)?(?:www\.)?ollama\.com/(?:library/)?", re.IGNORECASE)
"""How the addresses of models begin on Ollama's site, which people copy from."""


def pull(name: str, *, config: Config, memory_bytes: int, on_progress: OnProgress | None = None) -> Path:
    """Get a model from the hub or from Ollama's registry; what is here already is not got again.

    The hub's comes with all its parts and its projector, and is called by its place in the models folder. The
    registry's becomes a preset of its own name.

    Args:
        memory_bytes: of the machine, of which `config.memory_fraction` is planned with where the name leaves the
            quantization open; `nbllm.store.foreign.total_memory` tells it.

    Raises:
        ParameterError: `name` is not a name, or a setting of the hub cannot be used.
        ModelNotFoundError: a name that neither the table nor the registry has.
        PullError: it could not be got, or llama.cpp could not load it; the message says what to do.
        InsufficientMemoryError: no quantization fits into the memory.
        InvalidRequestError: a model of the registry whose name another model has here.
    """
    report = ignored if on_progress is None else on_progress
    wanted = wanted_model(name, config)
    if isinstance(wanted, RegistryName):
        from nbllm.store.pulling.from_registry import pull_from_registry

        return pull_from_registry(wanted, config, report)
    return _pulled_from_hub(wanted, config, memory_bytes, report)


def _pulled_from_hub(wanted: HubName, config: Config, memory_bytes: int, report: OnProgress) -> Path:
    report(PullProgress(status="resolving"))
    hub = Hub()
    commit, listed = hub.files(wanted)
    files = chosen(listed, wanted, planned_memory(config, memory_bytes))
    _check_is_the_same(files[0], wanted, hub)
    folder = hub_folder(config, wanted) / files[0].folder
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
    path = downloads[0].target
    name = path.relative_to(config.models_dir.absolute()).as_posix().removesuffix(".gguf")
    report(PullProgress(status="done", file=files[0].name, sha256=files[0].sha256, name=name))
    return path


def _check_is_the_same(file: RemoteFile, wanted: HubName, hub: Hub) -> None:
    """What the table names has been seen; what its repository has today, under the same name, may be anybody's."""
    if wanted.sha256 and file.sha256 != wanted.sha256:
        raise PullError(
            f"{file.path} is not the file any more that nbllm knows by this name (its SHA-256 is another): see "
            f"{hub.endpoint}/{wanted.repository}, and to take what is there now, pull "
            f"hf:{wanted.repository}/{file.path}"
        )


def wanted_model(name: str, config: Config) -> HubName | RegistryName:
    """What a name means: the hub's, a short one of the shipped table, or the registry's unless that is switched off.

    Raises:
        ParameterError: `name` is not a name.
        ModelNotFoundError: it can be none of these.
    """
    text = _without_page(checked_text(name))
    wanted = hub_model(text)
    if wanted is not None:
        return wanted
    of_registry = registry_name(text)
    if of_registry is None or not config.registry:
        off = "; Ollama's registry is switched off (NBLLM_REGISTRY, registry)" if of_registry is not None else ""
        raise ModelNotFoundError(no_model(text) + off)
    return of_registry


def _without_page(text: str) -> str:
    match = _PAGE.match(text)
    return text if match is None else f"ollama:{text[match.end() :]}"
