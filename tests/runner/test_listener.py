from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.runner.listener import LoopbackAddress, UnixAddress, dial, listen

if TYPE_CHECKING:
    import pytest


def test_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    listener = listen(tmp_path / "new")
    assert isinstance(listener.address, UnixAddress)
    path = Path(listener.address.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    listener.close()
    assert not path.exists()


def test_long_path_gives_way_to_a_temporary_folder(tmp_path: Path) -> None:
    listener = listen(tmp_path / ("x" * 120))
    assert isinstance(listener.address, UnixAddress)
    folder = Path(listener.address.path).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    dial(listener.address, 1.0).close()
    listener.accept().close()
    listener.close()
    assert not folder.exists()


def test_connection_of_another_user_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = listen(tmp_path)
    others = iter([os.getuid() + 1, os.getuid()])
    monkeypatch.setattr("nbllm.runner.listener._is_ours", lambda connection: next(others) == os.getuid())
    first = socket.socket(socket.AF_UNIX)
    first.connect(listener.address.path)  # type: ignore[union-attr]
    second = socket.socket(socket.AF_UNIX)
    second.connect(listener.address.path)  # type: ignore[union-attr]
    accepted = listener.accept()
    accepted.sendall(b"for the second")
    assert first.recv(20) == b""
    assert second.recv(20) == b"for the second"
    for connection in (first, second, accepted):
        connection.close()
    listener.close()


def test_loopback_serves_where_there_are_no_unix_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    listener = listen(tmp_path)
    assert isinstance(listener.address, LoopbackAddress)
    connection = dial(listener.address, 1.0)
    listener.accept().close()
    connection.close()
    listener.close()
