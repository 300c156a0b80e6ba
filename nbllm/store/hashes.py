"""The SHA-256 of files, remembered on disk because hashing a model takes seconds.

    hashes.json in the user's cache folder: {"version": 1, "files": {path: [size, mtime_ns, inode, sha256], ...}}

The oldest entry comes first. Two processes that write at once lose one entry, which is then computed again.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from nbllm.errors import ModelLoadError
from nbllm.store.files import replace_file
from nbllm.store.header import shown
from nbllm.store.parts import model_files

MAX_ENTRIES = 1000
MAX_CACHE_BYTES = 1 << 23
SETTLED_NS = 2 * 10**9  # a file changed so lately may change again within the same tick of its clock
_SHA256 = re.compile(r"[0-9a-f]{64}")
_Entry = list[int | str]


def file_hash(path: str | os.PathLike[str], *, cache_file: Path | None = None) -> str:
    """The SHA-256 of one file in hexadecimal, computed again only when its size, time or inode has changed.

    Raises:
        ModelLoadError: the file cannot be read, or changes while it is.
    """
    cache_file = cache_file or _default_cache_file()
    try:
        real = os.path.realpath(path)
        stamp = _stamp(os.stat(real))
        entries = _remembered(cache_file)
        entry = entries.get(real, [])
        if entry[:3] == stamp:
            return str(entry[3])
        digest = _digest(real, stamp)
    except (OSError, ValueError) as exc:
        raise ModelLoadError(f"{shown(path)}: cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if abs(time.time_ns() - int(stamp[1])) > SETTLED_NS:
        _remember(cache_file, real, [*stamp, digest])
    return digest


def model_hash(path: str | os.PathLike[str], *, cache_file: Path | None = None) -> str:
    """The SHA-256 of a model: its file's, or of a split one the hash of its parts' hashes.

    Raises:
        ModelLoadError: a file cannot be read, or changes while it is.
    """
    hashes = [file_hash(part, cache_file=cache_file) for part in model_files(Path(path)).paths]
    if len(hashes) == 1:
        return hashes[0]
    import hashlib

    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _default_cache_file() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("nbllm") / "hashes.json"


def _stamp(status: os.stat_result) -> _Entry:
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _digest(path: str, stamp: _Entry) -> str:
    import hashlib

    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _stamp(os.fstat(file.fileno())) != stamp:
            raise ModelLoadError(f"{shown(path)}: changed while it was read; wait until it is complete")
    return digest


def _remembered(cache_file: Path) -> dict[str, _Entry]:
    """What is well-formed in the cache file; a damaged one is as good as none."""
    import json

    try:
        with open(cache_file, "rb") as file:
            stored = json.loads(file.read(MAX_CACHE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    files = stored.get("files") if isinstance(stored, dict) and stored.get("version") == 1 else None
    return {path: entry for path, entry in files.items() if _is_entry(entry)} if isinstance(files, dict) else {}


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 4:
        return False
    *numbers, digest = entry
    is_stamp = all(isinstance(number, int) for number in numbers)
    return is_stamp and isinstance(digest, str) and _SHA256.fullmatch(digest) is not None


def _remember(cache_file: Path, path: str, entry: _Entry) -> None:
    import json

    entries = _remembered(cache_file)
    entries.pop(path, None)
    entries[path] = entry
    latest = dict(list(entries.items())[-MAX_ENTRIES:])
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        data = json.dumps({"version": 1, "files": latest}).encode()
        replace_file(cache_file, data, prefix=cache_file.name)
    except OSError:
        return  # a cache that cannot be written costs time, not the answer
