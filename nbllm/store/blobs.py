"""Files that are known by their SHA-256: models and adapters that came over HTTP or from a registry.

They lie in `.blobs` in the models folder, as `sha256-<64 hex digits>`. The listing of the folder skips what is hidden.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from nbllm.config import Config
from nbllm.errors import InvalidRequestError, ParameterError

BLOBS_FOLDER = ".blobs"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UNFINISHED = ".part"
_OLD_S = 24 * 3600.0


def is_digest(text: str) -> bool:
    """Whether this is "sha256:" and 64 lower-case hex digits."""
    return _DIGEST.fullmatch(text) is not None


def blob_path(digest: str, config: Config) -> Path:
    """Where the blob lies, or would.

    Raises:
        ParameterError: it is no digest.
    """
    if not isinstance(digest, str) or not is_digest(digest):
        raise ParameterError("digest", f'must be "sha256:" and 64 lower-case hex digits, not {digest!r:.100}')
    return config.models_dir / BLOBS_FOLDER / digest.replace(":", "-")


def find_blob(digest: str, config: Config) -> Path | None:
    """The blob's file, None if it is not there. Raises ParameterError for what is no digest."""
    path = blob_path(digest, config)
    try:
        return path if stat.S_ISREG(path.lstat().st_mode) else None
    except OSError:
        return None


class BlobWriter:
    """Takes a blob in pieces, and puts it into its place when its hash is right.

    Leaving the `with` before `finish` leaves nothing behind.

    Raises:
        InvalidRequestError: the folder cannot be made or written to.
    """

    def __init__(self, digest: str, config: Config) -> None:
        self._digest = digest
        self._target = blob_path(digest, config)
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._part = ""

    def __enter__(self) -> Self:
        folder = self._target.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _prune(folder)
            handle, self._part = tempfile.mkstemp(dir=folder, prefix=f"{self._target.name}.", suffix=_UNFINISHED)
        except OSError as exc:
            raise _not_written(folder, exc) from exc
        self._file = os.fdopen(handle, "wb")
        return self

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        try:
            self._open_file().write(data)
        except OSError as exc:
            raise _not_written(self._target.parent, exc) from exc

    def finish(self) -> Path:
        """Move the blob into its place.

        Raises:
            ParameterError: what was written has another hash.
        """
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != self._digest:
            raise ParameterError("digest", f"what was sent is {actual}, not {self._digest}; send it again")
        file = self._open_file()
        try:
            file.flush()
            os.fsync(file.fileno())  # a name that is a hash promises the bytes, also after a power cut
            file.close()
            os.replace(self._part, self._target)
        except OSError as exc:
            raise _not_written(self._target.parent, exc) from exc
        self._file = None
        return self._target

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # closing writes what is left, for which a full disk has no room
            self._file.close()
        self._file = None
        with suppress(OSError):
            os.unlink(self._part)

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("BlobWriter is written to in its `with`, before `finish`")
        return self._file


def _prune(folder: Path) -> None:
    """Remove what processes that were killed have left; a slow upload still grows and so is young."""
    now = time.time()
    for path in folder.glob(f"*{_UNFINISHED}"):
        with suppress(OSError):
            if now - path.lstat().st_mtime > _OLD_S:
                path.unlink()


def _not_written(folder: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"cannot write to {folder}: {error.strerror or error}; see models_dir in the settings")
