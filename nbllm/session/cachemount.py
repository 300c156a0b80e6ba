"""Whether a folder is on another machine, where the processes of two machines share no memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

_REMOTE = re.compile(
    r"9p|afs|afpfs|beegfs|ceph|cifs|davfs|glusterfs|gpfs|lustre|nfs\d?|panfs|smb\d|smbfs"
    r"|fuse\..*|macfuse|osxfuse",  # nobody says what is behind these: another machine, a bucket, a disk
    re.IGNORECASE,
)


class Mount(Protocol):
    """A file system and where it is, as psutil describes it."""

    @property
    def mountpoint(self) -> str: ...
    @property
    def fstype(self) -> str: ...
    @property
    def opts(self) -> str: ...


class _Best(NamedTuple):
    depth: int
    remote: bool


def is_remote(folder: Path, mounts: Iterable[Mount] | None = None) -> bool:
    """Whether the folder's file system is a network's, or may be one; what cannot be found out counts as local.

    Args:
        mounts: of this machine if not given; where two have the same place, the later one hides the earlier.
    """
    where = Path(os.path.realpath(folder))
    if where.drive.startswith("\\\\"):
        return True
    best = _Best(-1, False)
    for mount in _mounts() if mounts is None else mounts:
        place = Path(mount.mountpoint)
        if where.is_relative_to(place) and len(place.parts) >= best.depth:
            best = _Best(len(place.parts), _is_remote(mount))
    return best.remote


def _is_remote(mount: Mount) -> bool:
    return bool(_REMOTE.fullmatch(mount.fstype)) or "remote" in mount.opts.split(",")


def _mounts() -> Iterable[Mount]:
    import psutil

    try:
        mounts: Iterable[Mount] = psutil.disk_partitions(all=True)
    except (OSError, psutil.Error):
        return ()
    return mounts
