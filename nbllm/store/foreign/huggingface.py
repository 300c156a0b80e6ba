"""The cache of the Hugging Face hub.

models--OWNER--REPOSITORY/refs/main             the commit that main was at
                          snapshots/COMMIT/...  the files, as links into blobs, or themselves where there are no links
                          blobs/...
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.errors import ModelNotFoundError
from nbllm.store.foreign.look import Entry, Look, whole_models

if TYPE_CHECKING:
    from nbllm.store.remote.names import HubName

_MAX_DEPTH = 3
_MAX_REF_BYTES = 100
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True, slots=True)
class Repository:
    """What the cache has of one: its GGUF files, by their names there."""

    name: str
    files: Mapping[str, Entry]

    def models(self) -> dict[str, Entry]:
        """By "org/repo:Q4_K_M", or "org/repo/file.gguf" where that would not say which."""
        from nbllm.store.remote.choice import quantization_label

        files = whole_models(self.files)
        labels = {name: quantization_label(entry.path.name) for name, entry in files.items()}
        num_with = Counter(labels.values())
        return {
            f"{self.name}:{label}" if (label := labels[name]) and num_with[label] == 1 else f"{self.name}/{name}": entry
            for name, entry in files.items()
        }

    def meant(self, wanted: HubName, memory_bytes: int) -> Entry:
        """The model that a name of the hub means among those that are here.

        Raises:
            ModelNotFoundError: none, or several.
            InsufficientMemoryError: no quantization was named, and none fits into the memory.
        """
        from nbllm.store.remote.choice import RemoteFile, chosen
        from nbllm.store.remote.errors import PullError

        sizes = {name: _size(entry.path) for name, entry in self.files.items() if not entry.problem}
        try:
            files = chosen([RemoteFile(name, size, "") for name, size in sizes.items()], wanted, memory_bytes)
        except PullError as exc:
            raise ModelNotFoundError(f"in the Hugging Face cache, {exc}") from exc
        return self.files[files[0].path]


def repositories(look: Look) -> list[Repository]:
    """Those with GGUF files."""
    found = [Repository(name, _files(look, path)) for name, path in _folders(look)]
    return [repository for repository in found if repository.files]


def huggingface_models(look: Look) -> dict[str, Entry]:
    return {name: entry for repository in repositories(look) for name, entry in repository.models().items()}


def _folders(look: Look) -> Iterator[tuple[str, Path]]:
    for path in look.subfolders(look.folder):
        kind, *names = path.name.split("--")
        if kind == "models" and len(names) == 2 and all(map(_NAME.fullmatch, names)):
            yield "/".join(names), path


def _files(look: Look, repository: Path) -> dict[str, Entry]:
    """Of all snapshots; of a file that several have, the newest."""
    from nbllm.store.remote.names import is_safe_file

    found: dict[str, Entry] = {}
    for snapshot in _snapshots(look, repository):
        found = look.gguf_files(snapshot, depth=_MAX_DEPTH) | found
    return {name: entry for name, entry in found.items() if is_safe_file(name)}


def _snapshots(look: Look, repository: Path) -> list[Path]:
    """Main's first, then the latest."""
    there = [path for path in look.subfolders(repository / "snapshots") if _COMMIT.fullmatch(path.name)]
    if len(there) < 2:
        return there
    main = _main(look, repository)
    return sorted(there, key=lambda path: (path.name == main, _modified(path)), reverse=True)


def _main(look: Look, repository: Path) -> str:
    try:
        return look.beginning(repository / "refs" / "main", _MAX_REF_BYTES).decode("ascii", errors="replace").strip()
    except OSError:
        return ""


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
