"""The core lease between real processes and on tables that somebody has spoilt."""

from __future__ import annotations

import gc
import logging
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.engine import cores
from nbllm.engine.cores import MAX_RECORDS, CoreLease, decoding, default_path, divide

fcntl = pytest.importorskip("fcntl", reason="the table needs POSIX locks")

RECORD = struct.Struct("<4sId")


class Clock:
    def __init__(self) -> None:
        self.now_s = time.monotonic()

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table"


@pytest.fixture(autouse=True)
def _no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this process may have left an engine, whose table is open."""
    monkeypatch.setattr(cores, "_tables", {})


@pytest.fixture
def lease(path: Path, clock: Clock) -> Iterator[CoreLease]:
    lease = CoreLease(path, clock=clock)
    yield lease
    lease.close()


def record(until: float, wants: int = 8, magic: bytes = b"nbc1") -> bytes:
    return RECORD.pack(magic, wants, until)


# Shares


@given(st.integers(1, 128), st.integers(1, 200))
def test_divide_among_equals_is_even_and_fits(total: int, engines: int) -> None:
    shares = divide(total, [total] * engines)
    assert min(shares) >= 1
    assert shares == sorted(shares, reverse=True)
    if engines <= total:
        assert sum(shares) == total
        assert max(shares) - min(shares) <= 1


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40))
def test_divide_never_gives_more_than_there_is(wants: list[int]) -> None:
    granted = [divide(own, wants)[index] for index, own in enumerate(wants)]  # each engine computes its own share
    assert all(1 <= share <= own for share, own in zip(granted, wants, strict=True))
    if len(wants) <= min(wants):
        assert sum(granted) <= max(wants)


@pytest.mark.parametrize(
    ("total", "wants", "shares"),
    [
        pytest.param(8, [8, 8, 8], [3, 3, 2], id="remainder-to-the-first"),
        pytest.param(8, [8, 1], [7, 1], id="a-modest-one-leaves-the-rest"),
        pytest.param(2, [2, 2, 2], [1, 1, 1], id="more-engines-than-cores"),
        pytest.param(4, [], [], id="nobody"),
    ],
)
def test_divide_gives_known_shares(total: int, wants: list[int], shares: list[int]) -> None:
    assert divide(total, wants) == shares


# One table


def test_renew_alone_grants_all_cores(lease: CoreLease) -> None:
    assert lease.shared
    assert lease.renew(8, 0.5) == 8


def test_decoding_counts_only_records_that_can_be_true(clock: Clock) -> None:
    now = clock.now_s
    spoilt = [
        record(now - 1),
        record(now + 3600),
        record(float("nan")),
        record(float("inf")),
        record(now + 1, magic=b"nbc0"),
        record(now + 1, wants=0),
    ]
    assert decoding(b"".join(spoilt) + b"rest", now) == {5: 1}


def test_record_runs_out_without_renewal(path: Path, clock: Clock) -> None:
    path.write_bytes(record(clock.now_s + 0.5) * MAX_RECORDS)
    path.chmod(0o666)
    lease = CoreLease(path, clock=clock)
    assert lease.renew(8, 0.1) == 1
    clock.now_s += 0.6
    assert lease.renew(8, 0.1) == 8
    lease.close()


def test_release_frees_the_record_at_once(lease: CoreLease, path: Path, clock: Clock) -> None:
    lease.renew(8, 5)
    assert len(decoding(path.read_bytes(), clock.now_s)) == 1
    lease.release()
    assert decoding(path.read_bytes(), clock.now_s) == {}


def test_leases_of_one_process_count_once(lease: CoreLease, path: Path, clock: Clock) -> None:
    other = CoreLease(path, clock=clock)
    assert lease.renew(8, 1) == 8
    assert other.renew(8, 1) == 8
    other.close()
    assert lease.shared
    assert lease.renew(8, 1) == 8


def test_close_twice_and_use_afterwards_is_harmless(lease: CoreLease) -> None:
    lease.close()
    lease.close()
    lease.release()
    assert not lease.shared
    assert lease.renew(8, 1) == 8
    assert cores._tables == {}


def test_lease_that_is_forgotten_closes_its_table(path: Path) -> None:
    lease = CoreLease(path)
    lease.renew(2, 1)
    del lease
    gc.collect()
    assert cores._tables == {}


def test_table_is_writable_for_everybody_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        lease = CoreLease(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666
    lease.close()


def test_table_that_was_deleted_is_made_again(lease: CoreLease, path: Path, clock: Clock) -> None:
    path.unlink()
    clock.now_s += 10
    assert lease.renew(8, 1) == 8
    assert path.exists()
    assert lease.shared


def test_default_path_is_the_same_for_every_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert default_path().name == "nbllm-cores-v1"
    assert default_path().parent in (Path("/dev/shm"), Path("/tmp"))


# Other processes

OTHER = """
import sys, pathlib
from nbllm.engine.cores import CoreLease
lease = CoreLease(pathlib.Path(sys.argv[1]))
for line in sys.stdin:
    print(lease.renew(int(line), 9) if int(line) else lease.release(), lease.shared, flush=True)
"""


class Other:
    """An engine in another process, told over a pipe to renew (some cores) or to release (0)."""

    def __init__(self, path: Path, program: str = OTHER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, wanted: int) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{wanted}\n")
        self.process.stdin.flush()
        return str(self.process.stdout.readline()).strip()

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *args: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_two_processes_share_and_see_the_release(lease: CoreLease, path: Path) -> None:
    with Other(path) as other:
        assert other.tell(5) == "5 True"
        mine = lease.renew(5, 9)
        assert mine in (2, 3)
        assert other.tell(5) == f"{5 - mine} True"
        assert other.tell(0) == "None True"
        assert lease.renew(5, 9) == 5


def test_process_that_dies_leaves_its_cores_and_its_record(lease: CoreLease, path: Path, clock: Clock) -> None:
    with Other(path) as other:
        other.tell(8)
        assert lease.renew(8, 1) == 4
    clock.now_s = time.monotonic() + 9.1
    assert lease.renew(8, 1) == 8
    for number in range(MAX_RECORDS):  # no lock of the dead process is left
        fcntl.lockf(lease._held[0].fd, fcntl.LOCK_EX | fcntl.LOCK_NB, RECORD.size, number * RECORD.size)


def test_lock_that_got_lost_is_taken_again(lease: CoreLease, path: Path, clock: Clock) -> None:
    mine = lease._held[0].record
    path.read_bytes()  # closes a descriptor of the file, and with it goes the lock
    clock.now_s += 10
    lease.renew(2, 1)
    assert lease._held[0].record == mine
    with Other(path) as other:
        assert other.tell(1) == "1 True"
        assert lease.shared


HOG = """
import fcntl, sys
table = open(sys.argv[1], "r+b")
fcntl.lockf(table, fcntl.LOCK_EX)
for line in sys.stdin:
    print("locked", flush=True)
"""


def test_table_that_somebody_locked_wholly_still_divides(path: Path, clock: Clock) -> None:
    path.write_bytes(record(clock.now_s + 5) * 2)
    path.chmod(0o666)
    with Other(path, program=HOG) as hog:
        assert hog.tell(1) == "locked"
        lease = CoreLease(path, clock=clock)
        assert not lease.shared
        assert lease.renew(8, 1) == 8 // 3
        lease.close()


def in_a_child(work: Callable[[], object]) -> str:
    """The repr of what `work` returns in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, repr(work()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        return answer.read()


def test_fork_gives_the_child_a_record_of_its_own(lease: CoreLease) -> None:
    assert lease.renew(8, 5) == 8
    before = lease._held[0].record

    def child() -> object:
        lease.release()  # must not free the parent's record
        return [lease.shared, lease.renew(8, 5), lease._held[0].record != before]

    assert in_a_child(child) == "[False, 4, True]"
    assert lease.renew(8, 5) == 4
    assert lease._held[0].record == before


def test_fork_while_the_lock_is_held_leaves_the_child_usable(lease: CoreLease) -> None:
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with cores._lock:
            locked.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(60)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of a fork beside threads
            assert in_a_child(lambda: lease.renew(8, 1)) == "8"
    finally:
        done.set()
        holder.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")
def test_other_users_share_the_table() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "table")
        lease = CoreLease(path)
        lease.renew(8, 9)
        kept = []  # a lease that is forgotten gives its share back

        def child() -> object:
            cores._tables.clear()  # or it would use the descriptor that root has opened
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            kept.append(other := CoreLease(path))
            return os.geteuid(), other.shared, other.renew(8, 9)

        assert in_a_child(child) == "(65534, True, 4)"
        assert lease.renew(8, 1) == 4
        lease.close()


# Hostile tables


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def symlink(path: Path) -> None:
    path.with_name("target").write_bytes(b"precious")
    path.symlink_to("target")


def hard_link(path: Path) -> None:
    path.with_name("target").write_bytes(b"precious")
    path.with_name("target").chmod(0o666)
    path.hardlink_to(path.with_name("target"))


def read_only(path: Path) -> None:
    path.write_bytes(b"precious")
    path.chmod(0o444)


def personal(path: Path) -> None:
    path.write_bytes(b"precious")
    path.chmod(0o600)


@pytest.mark.parametrize("make", [fifo, folder, symlink, hard_link, read_only, personal])
def test_what_is_no_table_turns_the_lease_off_with_one_warning(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, make: object
) -> None:
    make(path)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        lease = CoreLease(path, clock=clock)
        for _ in range(3):
            clock.now_s += 10
            assert not lease.shared
            assert lease.renew(8, 1) == 8
            lease.release()
    assert [str(path) in message for message in caplog.messages] == [True]
    if path.is_file():
        assert path.read_bytes() == b"precious"
    lease.close()


@pytest.mark.parametrize("name", ["no/such/folder/table", "zero\0byte", "x" * 300], ids=["missing", "zero", "long"])
def test_impossible_path_turns_the_lease_off(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    lease = CoreLease(tmp_path / name)
    assert not lease.shared
    assert lease.renew(3, 1) == 3
    assert len(caplog.messages) == 1
    lease.close()


def test_lease_comes_back_when_the_obstacle_is_gone(path: Path, clock: Clock) -> None:
    path.mkdir()
    lease = CoreLease(path, clock=clock)
    path.rmdir()
    clock.now_s += 10
    lease.renew(2, 1)
    assert lease.shared
    lease.close()


@given(st.binary(max_size=2 * MAX_RECORDS * RECORD.size))
def test_random_contents_never_raise(tmp_path_factory: pytest.TempPathFactory, contents: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random-table"
    path.write_bytes(contents)
    path.chmod(0o666)
    lease = CoreLease(path)
    assert lease.shared
    assert 1 <= lease.renew(8, 1) <= 8
    lease.close()


def test_table_of_100_megabytes_is_read_no_further_than_its_records(path: Path) -> None:
    path.touch()
    path.chmod(0o666)
    os.truncate(path, 100_000_000)  # sparse
    lease = CoreLease(path)
    assert lease.renew(8, 1) == 8
    assert len(lease._held[0].read()) == MAX_RECORDS * RECORD.size
    lease.close()


def test_table_that_is_truncated_while_in_use_goes_on(lease: CoreLease, path: Path, clock: Clock) -> None:
    lease.renew(8, 1)
    os.truncate(path, 0)
    assert lease.renew(8, 1) == 8
    os.truncate(path, 7)
    assert lease.renew(8, 1) == 8


def test_all_records_forged_leaves_one_core_for_seconds_only(lease: CoreLease, path: Path, clock: Clock) -> None:
    os.pwrite(lease._held[0].fd, record(clock.now_s + 9.9, wants=2**32 - 1) * MAX_RECORDS, 0)
    assert lease.renew(8, 1) == 1
    clock.now_s += 10
    assert lease.renew(8, 1) == 8


@pytest.mark.parametrize("hold_s", [-1.0, 0.0, 1e9, float("nan")])
@pytest.mark.parametrize("count", [-5, 0, 1, 2**40])
def test_renew_grants_at_least_one_core_for_odd_arguments(lease: CoreLease, count: int, hold_s: float) -> None:
    assert lease.renew(count, hold_s) == max(1, count)


def test_without_posix_locks_every_engine_takes_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "fcntl", None)
    lease = CoreLease(path)
    assert not lease.shared
    assert lease.renew(8, 1) == 8
    assert not path.exists()


def test_failing_reads_turn_the_lease_off(lease: CoreLease, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    assert lease.renew(8, 1) == 8
    assert not lease.shared
