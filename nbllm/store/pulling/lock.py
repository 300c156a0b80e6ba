"""One pull of a repository at a time, among the processes and threads of this machine.

The lock is held on an empty file in the repository's folder, which goes when it is let go. Where the file system
knows no locks, nobody waits: then two pulls may spoil each other's files, and the SHA-256 of each will say so.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = ".pull.lock"
_POLL_S = 0.2
_TRIES = 100


@contextmanager
def locked(folder: Path, root: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Make the folder and hold it; afterwards remove what is empty of it.

    Args:
        root: the models folder, which stays where it was there before.
        on_wait: called before each look at a lock that another has. What it raises ends the waiting.
    """
    above_root = [one for one in (root, *root.parents) if not one.exists()]
    try:
        handle = _acquired(folder, on_wait)
        try:
            yield
        finally:
            _release(handle, folder / _NAME)
    finally:
        below_root = [one for one in (folder, *folder.parents) if one.is_relative_to(root) and one != root]
        for one in (*below_root, *above_root):
            with suppress(OSError):  # not empty, which is as it should be
                one.rmdir()


def _acquired(folder: Path, on_wait: Callable[[], None]) -> int:
    while True:
        handle = _opened(folder)
        try:
            if _is_locked(handle) and _is_same(handle, folder / _NAME):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        on_wait()
        time.sleep(_POLL_S)


def _opened(folder: Path) -> int:
    tries = 0
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except (FileExistsError, FileNotFoundError):  # who had the lock is just removing the empty folder
            tries += 1
            if tries == _TRIES:
                raise


def _is_same(handle: int, path: Path) -> bool:
    """Whether the file is still there: who let it go has removed it, and the next one makes another."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


if sys.platform == "win32":
    import msvcrt

    def _is_locked(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _release(handle: int, path: Path) -> None:
        os.close(handle)
        with suppress(OSError):  # another waits with it open
            path.unlink()

else:
    import fcntl

    def _is_locked(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _release(handle: int, path: Path) -> None:
        with suppress(OSError):
            path.unlink()
        os.close(handle)
