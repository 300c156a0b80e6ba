"""From a preset to the file that it is made of: bases that are presets are merged in."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nbllm.config import Config
from nbllm.core.adapters import Adapter
from nbllm.core.presets import Preset
from nbllm.errors import InsufficientMemoryError, InvalidRequestError, ModelLoadError, ModelNotFoundError
from nbllm.store.blobs import find_blob, is_digest
from nbllm.store.header import shown
from nbllm.store.names import resolve, resolve_listed
from nbllm.store.parts import first_part
from nbllm.store.presets import naming
from nbllm.store.presets.files import Shelf, entries

FindFile = Callable[[str], Path]
"""From what is no preset's name to the model's file, or an error."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A preset with all that it is made of.

    Attributes:
        preset: its base is the last one, no preset; its adapters are files.
        path: of the base.
    """

    preset: Preset
    path: Path


def flattened(
    preset: Preset,
    config: Config,
    *,
    shelf: Shelf | None = None,
    find_file: FindFile | None = None,
) -> Resolved:
    """Merge in the presets that this one is made of, and find the files. What the preset says itself wins.

    The adapters add up, the base's first.

    Args:
        shelf: what `entries` tells, where the caller knows it.
        find_file: finds a base that is no preset, where the caller knows a faster way.

    Raises:
        ModelNotFoundError: a base, a blob or an adapter is not there.
        ModelLoadError, InsufficientMemoryError: the base cannot be loaded.
        InvalidRequestError: presets that are made of each other, or a base on another server.
    """
    known = entries(config) if shelf is None else shelf
    names, seen = [preset.name], {naming.folded(preset.name)}
    while (below := _below(preset, names[-1], known, config)) is not None:
        if naming.folded(below.name) in seen:
            loop = shown(" <- ".join([*names, below.name]))
            raise InvalidRequestError(f"presets are made of each other: {loop}; give one of them another FROM")
        names.append(below.name)
        seen.add(naming.folded(below.name))
        preset = _merged(preset, below)
    path = _base_file(preset, names[-1], config, find_file or (lambda name: base_file(name, config)))
    if preset.adapters:
        preset = replace(preset, adapters=tuple(_adapter(each, preset.name, config) for each in preset.adapters))
    return Resolved(preset, path)


def _below(preset: Preset, name: str, known: Shelf, config: Config) -> Preset | None:
    """The preset that it is made of, None if it is made of something else."""
    if is_digest(preset.base) or Path(preset.base).is_absolute():
        return None
    entry = known.meant(config.unaliased(preset.base))
    if entry is not None and entry.preset is None:
        raise ModelLoadError(f"{shown(name)} is made of the preset {shown(preset.base)}, whose file {entry.problem}")
    return None if entry is None else entry.preset


def _merged(own: Preset, below: Preset) -> Preset:
    """The one over the other that it is made of."""
    sampling = own.sampling.or_else(below.sampling)
    above = own if own.template is not None or own.go_template is not None else below
    return replace(
        own,
        base=below.base,
        system=below.system if own.system is None else own.system,
        messages=own.messages or below.messages,
        sampling=replace(sampling, stop=sampling.stop or below.sampling.stop),
        template=above.template,
        go_template=above.go_template,
        adapters=below.adapters + own.adapters,
        context_length=own.context_length or below.context_length,
        threads=own.threads or below.threads,
        licenses=tuple(dict.fromkeys(below.licenses + own.licenses)),
        ignored={**below.ignored, **own.ignored},
    )


def _base_file(preset: Preset, name: str, config: Config, find_file: FindFile) -> Path:
    """Args: name: of the preset that says so."""
    made = f"{shown(name)} is made of {shown(preset.base)}"
    if is_digest(preset.base):
        blob = find_blob(preset.base, config)
        if blob is None:
            raise ModelNotFoundError(f"{made}, which is not there; upload it again, or create {shown(name)} anew")
        return blob
    path = Path(preset.base)
    if path.is_absolute():
        if not _is_file(path):
            raise ModelNotFoundError(f"{made}, which is not there; put it back, or create {shown(name)} anew")
        return first_part(path)
    try:
        return find_file(preset.base)
    except (ModelNotFoundError, ModelLoadError, InsufficientMemoryError) as exc:
        raise type(exc)(f"{made}: {exc}") from exc


def base_file(name: str, config: Config, *, models: Mapping[str, Path] | None = None) -> Path:
    """The file of a base that is no preset.

    Only whoever writes the settings may mean a file by its path, with an alias.

    Args:
        models: all that have names, where the caller knows them.

    Raises:
        As `flattened`.
    """
    meant = config.unaliased(name)
    if meant in config.endpoints:
        raise InvalidRequestError(f"{shown(name)} is on another server; a preset is made of a model on this machine")
    return resolve_listed(name, config, models=models) if meant == name else resolve(meant, config)


def _adapter(adapter: Adapter, name: str, config: Config) -> Adapter:
    path = find_blob(adapter.path, config) if is_digest(adapter.path) else Path(adapter.path)
    if path is None or not _is_file(path):
        what = f"the adapter {shown(adapter.path)} of {shown(name)}"
        raise ModelNotFoundError(f"{what} is not there; put it back, or create {shown(name)} anew")
    return replace(adapter, path=str(path))


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False
