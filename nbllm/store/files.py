"""Files that are this user's alone, and writing a file in one piece."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from nbllm.errors import ParameterError


def replace_file(target: Path, data: bytes, *, prefix: str = "", suffix: str = "", mode: int = 0o600) -> None:
    """Write beside the target and rename, so that a reader sees the old file or the new one and never half of one.

    Args:
        prefix: of the unfinished file's name, and `suffix`: what a clean-up knows it by.
        mode: of the file, where the system knows modes; only its owner reads it unless this says otherwise.
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        if mode != 0o600:  # mkstemp's
            os.chmod(name, mode)
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def own_folder(folder: Path, *, setting: str) -> Path:
    """Make the folder if it is missing, closed to others.

    Args:
        setting: that names the folder, for the error.

    Raises:
        ParameterError: it cannot be made, or others could put files into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError as exc:
        raise ParameterError(setting, f"{folder}: {exc.strerror or exc}; name another folder") from exc
    if os.name == "posix":
        if status.st_uid != os.geteuid():
            raise ParameterError(setting, f"{folder} belongs to another user; name a folder of your own")
        if status.st_mode & 0o022:
            raise ParameterError(setting, f"others may write to {folder}: chmod 700 {folder}")
    return folder


def beginning(path: Path, num_bytes: int) -> bytes:
    """The first bytes of a file, without waiting for a FIFO's writer.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, or the path has a NUL.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a file")
        return file.read(num_bytes)


def own_data(path: Path, *, most_bytes: int) -> bytes:
    """What this user wrote for nobody else to read, if it is no more than that; else nothing. Never raises OSError."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return b""
    try:
        return os.read(descriptor, most_bytes) if _is_own_file(os.fstat(descriptor), most_bytes) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _is_own_file(status: os.stat_result, most_bytes: int) -> bool:
    if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
        return False
    return os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o077)
