"""The models folder: its GGUF files, by name.

A file's full name is its path below the folder, with slashes. A name is only ever looked up in a listing, never
joined to a path, so that no name can leave the folder. Links are followed: whoever may put a link there chose to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nbllm.store.parts import part_of

MAX_DEPTH = 5
MAX_ENTRIES = 20_000


def folder_models(folder: Path) -> dict[str, Path]:
    """The first or only files of the models in the folder and below it, by full name, sorted.

    Hidden folders and files, projectors (*mmproj*) and later parts of split models are left out.
    """
    found = {name: path for name, path in _files(folder) if is_model_file(path)}
    return dict(sorted(found.items()))


def is_model_file(path: Path) -> bool:
    """Whether its name is that of a model, or of the first part of a split one."""
    name = path.name.casefold()
    if not name.endswith(".gguf") or name.startswith(".") or "mmproj" in name:
        return False
    part = part_of(path)
    return part is None or part.number == 1


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Breadth first, each folder once however many links lead to it."""
    waiting = [("", folder, 1)]
    seen: set[str] = set()
    num_entries = 0
    for prefix, parent, depth in waiting:  # grows while it is read
        real = os.path.realpath(parent)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(parent):
            num_entries += 1
            if num_entries > MAX_ENTRIES:
                return
            if _is_folder(entry):
                if depth < MAX_DEPTH and not entry.name.startswith("."):
                    waiting.append((f"{prefix}{entry.name}/", parent / entry.name, depth + 1))
            elif _is_file(entry):
                yield prefix + entry.name, parent / entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError):  # not there, or closed to this user
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
