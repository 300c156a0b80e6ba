"""The list of the models that have names on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from nbllm.config import Config, load_config
from nbllm.core import ModelInfo
from nbllm.errors import NbllmError
from nbllm.store.gguf import model_info
from nbllm.store.header import UNREADABLE
from nbllm.store.known import KnownModel, known_models
from nbllm.store.parts import model_files
from nbllm.store.presets.files import Entry, Shelf, entries
from nbllm.store.presets.flattening import FindFile, base_file, flattened

_Stamp = tuple[tuple[str, int, int, int], ...]
_described: dict[Path, tuple[_Stamp, ModelInfo]] = {}  # assigning an entry is atomic, so threads need no lock


def list_models(config: Config | None = None, *, loaded: Collection[str] = ()) -> list[ModelInfo]:
    """Describe the models that have names, also those that cannot be read, sorted by name.

    Args:
        loaded: the paths of the models that this process holds, as `resolve` returns them.
    """
    config = load_config() if config is None else config
    models = known_models(config)
    infos = [_info(name, known) for name, known in models.items()]
    infos += _presets(models, config)
    held = {os.fspath(path) for path in loaded}
    return sorted(
        (replace(info, loaded=info.path in held) for info in infos), key=lambda info: (info.name.casefold(), info.name)
    )


def _info(name: str, known: KnownModel) -> ModelInfo:
    if known.problem:
        return ModelInfo(name=name, path=str(known.path), size_bytes=0, source=known.source, problem=known.problem)
    return replace(described(known.path), name=name, source=known.source)


def _presets(models: Mapping[str, KnownModel], config: Config) -> list[ModelInfo]:
    shelf = entries(config)
    if not shelf:
        return []
    find_file = _finder({name: known.path for name, known in models.items() if not known.problem}, config)
    return [_preset_info(name, entry, shelf, find_file, config) for name, entry in shelf.items()]


def _preset_info(name: str, entry: Entry, shelf: Shelf, find_file: FindFile, config: Config) -> ModelInfo:
    problem = entry.problem
    if entry.preset is not None:
        try:
            whole = flattened(entry.preset, config, shelf=shelf, find_file=find_file)
        except NbllmError as exc:
            problem = str(exc)
        else:
            info = replace(described(whole.path), name=name, source="preset")
            return replace(info, has_chat_template=True) if whole.preset.template else info
    return ModelInfo(name=name, path=str(entry.path), size_bytes=0, source="preset", problem=problem)


def _finder(paths: Mapping[str, Path], config: Config) -> FindFile:
    """Looks each base up once: those that are not there take the longest, and many presets may have the same one."""
    outcomes: dict[str, Path | NbllmError] = {}

    def find_file(name: str) -> Path:
        if name not in outcomes:
            try:
                outcomes[name] = base_file(name, config, models=paths)
            except NbllmError as exc:
                outcomes[name] = exc
        outcome = outcomes[name]
        if isinstance(outcome, NbllmError):
            raise outcome
        return outcome

    return find_file


def described(path: Path) -> ModelInfo:
    """What a file says of itself, called by its own name: from the last reading, if no file of the model changed since.

    What is wrong with it is in `problem`.
    """
    stamp = _stamp(path)
    remembered = _described.get(path)
    if remembered is not None and remembered[0] == stamp:
        return remembered[1]
    info = model_info(path, path.name)
    if not info.problem.startswith(UNREADABLE):  # it may go without a trace in the stamp: rights, a disk that is back
        _described[path] = (stamp, info)
    return info


def _stamp(path: Path) -> _Stamp:
    stamps = []
    for part in model_files(path).paths:
        try:
            status = part.stat()
        except OSError:
            continue
        stamps.append((part.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(stamps)
