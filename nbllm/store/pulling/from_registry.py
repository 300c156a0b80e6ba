"""From a name of Ollama's registry to a preset, whose weights are a blob of the models folder.

While they come they are in `.blobs/pulling-.../`, a folder for each blob: models that share one pull it one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from nbllm.config import Config
from nbllm.core.presets import Preset
from nbllm.errors import NbllmError, ParameterError
from nbllm.store.blobs import blob_path, find_blob, is_digest
from nbllm.store.foreign import store_models
from nbllm.store.presets import shelf
from nbllm.store.pulling.download import Download, fetch_all, unwritable
from nbllm.store.pulling.lock import locked
from nbllm.store.pulling.manifest import Layer, Manifest
from nbllm.store.pulling.progress import OnProgress, PullProgress
from nbllm.store.pulling.recipe import recipe
from nbllm.store.pulling.registry import Registry
from nbllm.store.pulling.registry_names import RegistryName
from nbllm.store.pulling.usable import check_adapter, check_model
from nbllm.store.remote.errors import PullError


def pull_from_registry(name: RegistryName, config: Config, report: OnProgress) -> Path:
    """Get a model that Ollama has not got already, and save the preset of its name.

    Returns:
        The file of its weights.

    Raises:
        ModelNotFoundError: the registry does not have it.
        PullError: it could not be got, or llama.cpp cannot load it; the message says what to do.
        InvalidRequestError: another model has its name.
    """
    report(PullProgress(status="resolving"))
    _check_online()
    ollamas = store_models("ollama", config).get(str(name))
    if ollamas is not None and not ollamas.problem:
        report(PullProgress(status="done", file=str(name), name=str(name)))
        return ollamas.path
    old = _replaceable(str(name), config)
    with Registry(config.registry, name) as registry:
        manifest = registry.manifest()
        made = recipe(str(name), manifest, registry.text)
        downloads = _downloads(str(name), manifest, registry, config)
        waiting = PullProgress(status="waiting", file=str(name))
        try:
            with _held(downloads, config, on_wait=lambda: report(waiting)), _new_removed_on_error(downloads):
                fetch_all(downloads, report)
                shelf.save(made.preset, config)
        except OSError as exc:
            raise unwritable(exc, downloads) from exc
    _remove_replaced(old, config)
    weights = downloads[0]
    report(
        PullProgress(status="done", file=weights.label, sha256=weights.sha256, name=made.preset.name, notes=made.notes)
    )
    return weights.target


def _check_online() -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise PullError("HF_HUB_OFFLINE is set, so no registry is asked: unset it, and pull again")


def _replaceable(name: str, config: Config) -> Preset | None:
    """The preset that an earlier pull has made. Raises NbllmError for a name that means something else."""
    there = shelf.find(name, config)
    if there is not None and not is_digest(there.base):
        raise PullError(f"there is a preset {there.name} that you made of {there.base}: remove it before this pull")
    if there is None:
        try:
            shelf.check_is_free(name, config)
        except ParameterError as exc:
            raise PullError(
                f"{name} is another model's name here, so that this one cannot be pulled as {name}"
            ) from exc
    return there


def _downloads(name: str, manifest: Manifest, registry: Registry, config: Config) -> list[Download]:
    """The weights first, each blob once."""
    found: dict[str, Download] = {}
    for layer in (*manifest.of("model"), *manifest.of("adapter")):
        found.setdefault(layer.digest, _download(name, layer, registry, config))
    return list(found.values())


def _download(name: str, layer: Layer, registry: Registry, config: Config) -> Download:
    is_model = layer.kind == "model"
    target = blob_path(layer.digest, config).absolute()
    return Download(
        target,
        layer.size,
        layer.sha256,
        registry.opener(layer),
        label=name if is_model else f"{name} {layer.kind}",
        part_folder=target.with_name(f"pulling-{layer.sha256[:32]}"),
        check=partial(check_model if is_model else check_adapter, name),
    )


@contextmanager
def _held(downloads: Sequence[Download], config: Config, on_wait: Callable[[], None]) -> Iterator[None]:
    """Always in the same order, so that no two pulls wait for each other."""
    folders = sorted(download.part.parent for download in downloads)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(locked(folder, config.models_dir.absolute(), on_wait))
        yield


@contextmanager
def _new_removed_on_error(downloads: Sequence[Download]) -> Iterator[None]:
    """Of blobs that no preset names in the end."""
    new = [download.target for download in downloads if not download.target.exists()]
    try:
        yield
    except (NbllmError, OSError):
        _unlink(new)
        raise


def _remove_replaced(old: Preset | None, config: Config) -> None:
    """The blobs of an earlier pull that nothing names any more, unless a damaged preset might."""
    if old is None or any(entry.problem for entry in shelf.entries(config).values()):
        return
    named = {digest for preset in shelf.presets(config).values() for digest in _digests(preset)}
    paths = [find_blob(digest, config) for digest in _digests(old) if digest not in named]
    _unlink([path for path in paths if path is not None])


def _digests(preset: Preset) -> set[str]:
    return {text for text in (preset.base, *(adapter.path for adapter in preset.adapters)) if is_digest(text)}


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # on Windows, of a model that is loaded
            path.unlink()
