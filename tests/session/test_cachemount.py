"""Which file systems are another machine's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from nbllm.session.cachemount import is_remote


class _Mount(NamedTuple):
    mountpoint: str
    fstype: str
    opts: str = "rw"


_ROOT = _Mount("/", "overlay")


@pytest.mark.parametrize(
    ("fstype", "expected"),
    [
        ("nfs", True),
        ("nfs4", True),
        ("NFS", True),
        ("cifs", True),
        ("smb3", True),
        ("lustre", True),
        ("fuse.sshfs", True),
        ("ext4", False),
        ("apfs", False),
        ("fuseblk", False),
        ("nfsd", False),
        ("", False),
    ],
)
def test_kind_of_file_system_says_whether_it_is_remote(fstype: str, expected: bool) -> None:
    assert is_remote(Path("/home/a/answers"), [_ROOT, _Mount("/home", fstype)]) is expected


def test_drive_that_is_called_remote_is() -> None:
    assert is_remote(Path("/home/a"), [_ROOT, _Mount("/home", "NTFS", "rw,remote")])


def test_nearest_mount_decides() -> None:
    mounts = [_Mount("/home/a/disk", "ext4"), _Mount("/home", "nfs"), _ROOT]
    assert is_remote(Path("/home/a/answers"), mounts)
    assert not is_remote(Path("/home/a/disk/answers"), mounts)
    assert not is_remote(Path("/homework"), mounts)


def test_later_mount_hides_the_earlier_one_of_its_place() -> None:
    assert is_remote(Path("/home"), [_ROOT, _Mount("/home", "autofs"), _Mount("/home", "nfs4")])


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    os.symlink("there", tmp_path / "here")
    assert is_remote(tmp_path / "here" / "answers", [_ROOT, _Mount(os.path.realpath(tmp_path / "there"), "nfs")])


def test_this_machine_can_be_asked(tmp_path: Path) -> None:
    assert is_remote(tmp_path) in (True, False)


def test_machine_that_does_not_tell_counts_as_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    def refuse(**_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(psutil, "disk_partitions", refuse)
    assert not is_remote(tmp_path)
