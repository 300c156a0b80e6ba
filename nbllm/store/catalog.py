"""The list of the models that have names on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from nbllm.config import Config, load_config
from nbllm.core import ModelInfo
from nbllm.store.gguf import model_info
from nbllm.store.names import named_models
from nbllm.store.parts import model_files

_Stamp = tuple[tuple[str, int, int, int], ...]
_described: dict[Path, tuple[_Stamp, ModelInfo]] = {}  # assigning an entry is atomic, so threads need no lock


def list_models(config: Config | None = None, *, loaded: Collection[str] = ()) -> list[ModelInfo]:
    """Describe the bundled models and those in the models folder, sorted by name.

    Args:
        loaded: the paths of the models that this process holds, as `resolve` returns them.
    """
    models = named_models(load_config() if config is None else config)
    infos = [_info(name, path) for name, path in models.items()]
    held = {os.fspath(path) for path in loaded}
    return sorted(
        (replace(info, loaded=info.path in held) for info in infos), key=lambda info: (info.name.casefold(), info.name)
    )


def _info(name: str, path: Path) -> ModelInfo:
    """From the last reading, if no file of the model has changed since."""
    stamp = _stamp(path)
    remembered = _described.get(path)
    if remembered is not None and remembered[0] == stamp:
        return replace(remembered[1], name=name)
    info = model_info(path, name)
    if not info.problem:  # a problem may go without a trace in the stamp: rights, a disk that is back
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
