"""A listener that stops what its process does: who is heard, for how long, and what is left behind."""

from __future__ import annotations

import gc
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.errors import ParameterError
from nbllm.runner import records, stops
from nbllm.runner.listener import UnixAddress, listen
from nbllm.runner.stops import StopListener, request_stop
from tests.forked import succeeds_in_child

Open = Callable[..., StopListener]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def opened(folder: Path) -> Iterator[Open]:
    """Makes listeners, which are closed in the end."""
    made: list[StopListener] = []

    def open(on_stop: Callable[[], None] = lambda: None) -> StopListener:
        made.append(StopListener(folder, on_stop))
        return made[-1]

    yield open
    for listener in made:
        listener.close()


def _file(folder: Path, token: str) -> Path:
    return folder / f"stop-{token}.json"


def _socket_path(folder: Path, token: str) -> Path:
    return Path(msgspec.json.decode(_file(folder, token).read_bytes())["address"]["path"])


def _connected(folder: Path, token: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(os.fspath(_socket_path(folder, token)))
    return connection


def test_each_request_stops_once(folder: Path, opened: Open) -> None:
    calls: list[str] = []
    listener = opened(lambda: calls.append(threading.current_thread().name))
    assert request_stop(folder, listener.token)
    assert calls == ["nbllm-stops"]
    assert request_stop(folder, listener.token)
    assert len(calls) == 2


def test_the_right_one_of_two_is_stopped(folder: Path, opened: Open) -> None:
    calls: list[int] = []
    first, second = opened(lambda: calls.append(1)), opened(lambda: calls.append(2))
    assert first.token != second.token
    assert request_stop(folder, second.token)
    assert calls == [2]


def test_what_it_leaves_in_the_folder_is_for_its_owner_and_goes_with_it(folder: Path, opened: Open) -> None:
    listener = opened()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) == 2  # the file and the socket
    listener.close()
    listener.close()
    assert list(folder.iterdir()) == []
    assert not request_stop(folder, listener.token)


def test_one_that_nobody_holds_goes_away(folder: Path) -> None:
    StopListener(folder, lambda: None)
    gc.collect()
    assert list(folder.iterdir()) == []


def test_records_of_engines_and_of_stops_live_side_by_side(folder: Path, opened: Open) -> None:
    listener = opened()
    assert records.find(folder) == []
    assert request_stop(folder, listener.token)


def test_failure_to_stop_is_logged_and_the_next_request_is_heard(
    folder: Path, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [RuntimeError("no")]

    def stop() -> None:
        if failures:
            raise failures.pop()

    listener = opened(stop)
    assert not request_stop(folder, listener.token)
    assert "stopping failed" in caplog.text
    assert request_stop(folder, listener.token)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n", id="a line feed"),
        pytest.param(b"0" * 32 + b"\n", id="another token"),
        pytest.param(b"\xff" * 33, id="no text"),
        pytest.param(b"a" * 200_000, id="much"),
    ],
)
def test_wrong_words_stop_nothing(folder: Path, opened: Open, said: bytes) -> None:
    calls: list[int] = []
    listener = opened(lambda: calls.append(1))
    with _connected(folder, listener.token) as connection:
        try:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        except OSError:  # it hung up before all was sent
            assert len(said) > 33
    assert calls == []
    assert request_stop(folder, listener.token)


def test_caller_that_says_nothing_is_left(folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "_LISTEN_S", 0.05)
    listener = opened()
    with _connected(folder, listener.token) as silent, _connected(folder, listener.token) as slow:
        slow.sendall(listener.token[:5].encode())
        assert request_stop(folder, listener.token)
        assert (silent.recv(1), slow.recv(1)) == (b"", b"")


def test_request_gives_up_when_nobody_answers(folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "_ASK_S", 0.05)
    is_over = threading.Event()

    def hang() -> None:
        is_over.wait(10)

    listener = opened(hang)
    try:
        assert not request_stop(folder, listener.token)
    finally:
        is_over.set()


@pytest.mark.parametrize(
    "token",
    [None, 5, b"0" * 32, "", "0" * 32, "0" * 31, "A" * 32, "0" * 32 + "\n", "../" + "0" * 29, "\0" * 32, "\u0660" * 32],
    ids=repr,
)
def test_unknown_and_malformed_tokens_stop_nothing(folder: Path, opened: Open, token: object) -> None:
    opened()
    assert not request_stop(folder, token)


def test_request_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert not request_stop(tmp_path / "nothing", "0" * 32)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80) | st.just(b"[" * 5000))
def test_request_survives_whatever_the_file_says(tmp_path: Path, data: bytes) -> None:
    path = _file(tmp_path, "0" * 32)
    path.write_bytes(data)
    path.chmod(0o600)
    assert not request_stop(tmp_path, "0" * 32)


@pytest.mark.parametrize(
    "address",
    [
        {"type": "unix", "path": "/nowhere/x.sock"},
        {"type": "unix", "path": "a\0b"},
        {"type": "unix", "path": "x" * 4000},
        {"type": "loopback", "port": -1},
        {"type": "loopback", "port": 2**40},
    ],
    ids=["nobody", "NUL", "long", "no port", "large port"],
)
def test_request_survives_an_address_that_leads_nowhere(tmp_path: Path, address: object) -> None:
    own = msgspec.to_builtins(records.this_process())
    path = _file(tmp_path, "0" * 32)
    path.write_bytes(msgspec.json.encode({**own, "address": address}))
    path.chmod(0o600)
    assert not request_stop(tmp_path, "0" * 32)
    assert path.exists()  # its process lives


def test_file_that_others_can_read_counts_for_nothing(folder: Path, opened: Open) -> None:
    listener = opened()
    _file(folder, listener.token).chmod(0o644)
    assert not request_stop(folder, listener.token)


def _leave(folder: Path, token: str, **changes: object) -> Path:
    """What a process that was killed would leave."""
    own = msgspec.to_builtins(records.this_process())
    left = folder / f"{token[:16]}.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(left))
    path = _file(folder, token)
    path.write_bytes(
        msgspec.json.encode({**own, "address": msgspec.to_builtins(UnixAddress(os.fspath(left))), **changes})
    )
    path.chmod(0o600)
    return path


def test_what_the_dead_left_is_swept_up_and_what_is_elsewhere_is_not(folder: Path, opened: Open) -> None:
    records.prepare(folder)
    dead, elsewhere = _leave(folder, "d" * 32, started=1.0), _leave(folder, "e" * 32, started=1.0, host="elsewhere")
    listener = opened()
    assert request_stop(folder, listener.token)  # its thread has swept before it listens
    assert not dead.exists()
    assert not (folder / f"{'d' * 16}.sock").exists()
    assert elsewhere.exists()


def test_request_to_the_dead_removes_what_they_left(folder: Path) -> None:
    records.prepare(folder)
    dead = _leave(folder, "d" * 32, started=1.0)
    assert not request_stop(folder, "d" * 32)
    assert not dead.exists()
    assert list(folder.iterdir()) == []


def test_forked_child_owns_nothing_and_may_ask(folder: Path, opened: Open) -> None:
    calls: list[int] = []
    listener = opened(lambda: calls.append(os.getpid()))
    assert succeeds_in_child(listener.close)
    assert request_stop(folder, listener.token)

    def ask() -> None:
        assert request_stop(folder, listener.token)

    assert succeeds_in_child(ask)
    assert calls == [os.getpid()] * 2


def test_end_of_the_process_takes_it_back(folder: Path) -> None:
    script = (
        "import sys, pathlib; from nbllm.runner.stops import StopListener\n"
        "listener = StopListener(pathlib.Path(sys.argv[1]), print); assert list(pathlib.Path(sys.argv[1]).iterdir())"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, timeout=60)
    assert list(folder.iterdir()) == []


def test_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ParameterError, match="runtime_dir: others may write to"):
        StopListener(tmp_path, lambda: None)


def test_failure_to_write_leaves_no_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(stops, "replace_file", refuse)
    with pytest.raises(OSError, match="full"):
        StopListener(folder, lambda: None)
    assert list(folder.iterdir()) == []


def test_it_goes_on_when_no_connection_could_be_taken(
    folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    class Moody:
        """A listener that fails once, as when no file descriptor is free."""

        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def accept(self) -> socket.socket:
            if not failed.is_set():
                failed.set()
                raise OSError("too many open files")
            return self._inner.accept()  # type: ignore[attr-defined,no-any-return]

    monkeypatch.setattr(stops, "listen", lambda folder: Moody(listen(folder)))
    assert request_stop(folder, opened().token)
    assert failed.is_set()
