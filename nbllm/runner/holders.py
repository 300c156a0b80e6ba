"""The other processes that have a model's files in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from nbllm.errors import InvalidRequestError
from nbllm.runner.records import Record, find


def holders(paths: Iterable[Path], folder: Path) -> list[Record]:
    """The engines of other processes, of those with a record in the folder, that have loaded one of the files."""
    real = {os.path.realpath(path) for path in paths}
    return [record for record in find(folder) if record.pid != os.getpid() and os.path.realpath(record.path) in real]


def note_of_holders(name: str, paths: Iterable[Path], folder: Path, *, platform: str = sys.platform) -> str:
    """What to say before the files of a model are removed; "" where no other process holds them.

    Raises:
        InvalidRequestError: one does, and this system keeps a file that is in use.
    """
    who = " and ".join(f"{record.kind} process {record.pid}" for record in holders(paths, folder))
    if not who:
        return ""
    if platform == "win32":
        raise InvalidRequestError(f"{name} is loaded in {who}, and Windows keeps what is in use: end that first")
    return f"{name} is loaded in {who}: it goes on answering there, and the disk has the space when that has ended"
