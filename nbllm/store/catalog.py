"""The list of the models that have names on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from nbllm.config import Config, load_config
from nbllm.core import ModelInfo
from nbllm.store.gguf import model_info
from nbllm.store.header import UNREADABLE
from nbllm.store.known import KnownModel, known_models
from nbllm.store.parts import model_files

_Stamp = tuple[tuple[str, int, int, int], ...]
_described: dict[Path, tuple[_Stamp, ModelInfo]] = {}  # assigning an entry is atomic, so threads need no lock


def list_models(config: Config | None = None, *, loaded: Collection[str] = ()) -> list[ModelInfo]:
    """Describe the models that have names, also those that cannot be read, sorted by name.

    Args:
        loaded: the paths of the models that this process holds, as `resolve` returns them.
    """
    models = known_models(load_config() if config is None else config)
    infos = [_info(name, known) for name, known in models.items()]
    held = {os.fspath(path) for path in loaded}
    return sorted(
        (replace(info, loaded=info.path in held) for info in infos), key=lambda info: (info.name.casefold(), info.name)
    )


def _info(name: str, known: KnownModel) -> ModelInfo:
    if known.problem:
        return ModelInfo(name=name, path=str(known.path), size_bytes=0, source=known.source, problem=known.problem)
    return replace(_described_file(known.path), name=name, source=known.source)


def _described_file(path: Path) -> ModelInfo:
    """From the last reading, if no file of the model has changed since."""
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
