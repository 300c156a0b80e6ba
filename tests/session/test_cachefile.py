"""The answers' file: what a lock, damage, a full disk, a fork or a sudden end costs, which is never an answer."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.session import cachefile
from nbllm.session.cache import AnswerCache
from nbllm.session.response import Response
from tests.forked import succeeds_in_child
from tests.session.cached import ANSWER, KEY, OTHER_KEY

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
posix = pytest.mark.skipif(sys.platform == "win32", reason="rights are others there")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def answers(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "answers")


def reopened(answers: AnswerCache) -> AnswerCache:
    return AnswerCache(answers.folder)


@contextmanager
def database(answers: AnswerCache) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(answers.path, isolation_level=None)) as connection:
        yield connection


def mode_of(answers: AnswerCache) -> str:
    with database(answers) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def damaged_path(answers: AnswerCache) -> Path:
    return answers.path.with_name("answers.sqlite.damaged")


# ---- the file


@posix
def test_file_and_folder_are_nobody_elses(answers: AnswerCache) -> None:
    answers.put(KEY, ANSWER)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (answers.folder, *answers.folder.iterdir())}
    assert modes.pop("answers") == 0o700
    assert modes == dict.fromkeys(["answers.sqlite", "answers.sqlite-wal", "answers.sqlite-shm"], 0o600)


@posix
def test_folder_of_someone_else_keeps_its_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    AnswerCache(tmp_path).put(KEY, ANSWER)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_file_that_is_let_go_is_one_file(answers: AnswerCache) -> None:
    other = reopened(answers)
    other.put(KEY, ANSWER)
    del other
    gc.collect()
    assert os.listdir(answers.folder) == ["answers.sqlite"]
    assert answers.get(KEY) == ANSWER


def test_file_that_was_deleted_is_begun_anew(answers: AnswerCache) -> None:
    answers.put(KEY, ANSWER)
    answers.path.unlink()
    assert answers.get(KEY) is None
    answers.put(OTHER_KEY, ANSWER)
    assert reopened(answers).get(OTHER_KEY) == ANSWER


def test_memory_is_shared_where_it_can_be(answers: AnswerCache) -> None:
    answers.put(KEY, ANSWER)
    assert mode_of(answers) == "wal"


@posix
@pytest.mark.parametrize("left_in_wal_mode", [True, False])
def test_rollback_journal_where_shared_memory_is_refused(answers: AnswerCache, left_in_wal_mode: bool) -> None:
    if left_in_wal_mode:
        reopened(answers).put(OTHER_KEY, ANSWER)
        gc.collect()
    answers.folder.mkdir(exist_ok=True)
    os.symlink("answers.sqlite-shm", answers.folder / "answers.sqlite-shm")  # which nobody can open
    answers.put(KEY, ANSWER)
    assert answers.get(KEY) == ANSWER
    assert mode_of(answers) == "delete"
    assert reopened(answers).num_answers == 1 + left_in_wal_mode


def test_rollback_journal_on_another_machines_disk(answers: AnswerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    reopened(answers).put(OTHER_KEY, ANSWER)
    gc.collect()
    monkeypatch.setattr(cachefile, "is_remote", lambda folder: folder == answers.folder)
    answers.put(KEY, ANSWER)
    assert mode_of(answers) == "delete"
    other = reopened(answers)
    other.put("0" * 64, ANSWER)
    assert answers.num_answers == other.num_answers == 3


# ---- trouble


def _junk(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE answers (question TEXT)")


def _torn(path: Path) -> None:
    """Its header is right and nothing else."""
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))


@pytest.mark.parametrize("spoil", [_junk, _foreign, _torn])
def test_damaged_file_is_set_aside_and_begun_anew(
    answers: AnswerCache, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    reopened(answers).put(KEY, ANSWER)
    gc.collect()
    spoil(answers.path)
    spoilt = answers.path.read_bytes()
    assert answers.get(KEY) is None
    answers.put(KEY, ANSWER)
    assert answers.get(KEY) == reopened(answers).get(KEY) == ANSWER
    assert damaged_path(answers).read_bytes()[100:] == spoilt[100:]  # without what SQLite notes in a file's header
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1
    assert answers.clear() == 1
    assert not damaged_path(answers).exists()


def test_file_that_is_damaged_while_it_is_open_is_set_aside(answers: AnswerCache) -> None:
    for number in range(50):
        answers.put(f"{number:064x}", ANSWER)
    with database(answers) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(answers.path, "r+b") as file:
        file.write(b"\xff" * answers.path.stat().st_size)
    answers.put(KEY, ANSWER)
    assert answers.get(KEY) == reopened(answers).get(KEY) == ANSWER


def test_answers_of_one_that_was_first_to_begin_anew_stay(answers: AnswerCache) -> None:
    """Another process, whose connection is to what was set aside, must not set the new one aside."""
    other = reopened(answers)
    other.put(KEY, ANSWER)
    _junk(answers.path)
    answers.put(KEY, ANSWER)
    other.put(OTHER_KEY, ANSWER)
    assert other.num_answers == answers.num_answers == 2


@posix
@forks
def test_memory_that_another_process_shares_stays_with_the_damaged_file(answers: AnswerCache) -> None:
    """A new file that took it over would be told of pages that it does not have."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            reopened(answers).put(KEY, ANSWER)
            os.write(theirs, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(theirs)
    assert os.read(ours, 1)
    damage = [sqlite3.DatabaseError("malformed")]
    damage[0].sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def find_damage(_: sqlite3.Connection) -> None:
        if damage:
            raise damage.pop()

    answers._file.write(find_damage, begin=True)
    answers.put(OTHER_KEY, ANSWER)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ours)
    assert damaged_path(answers).exists()
    assert mode_of(answers) == "wal"
    assert set(reopened(answers).find_many([KEY, OTHER_KEY])) == {OTHER_KEY}


@pytest.mark.parametrize(
    "obstacle", ["folder in its place", "file for a folder", "pipe in its place", "link to itself"]
)
def test_file_that_cannot_be_one_costs_no_answer(answers: AnswerCache, obstacle: str) -> None:
    if obstacle == "file for a folder":
        answers.folder.write_text("a file")
    else:
        answers.folder.mkdir()
    if obstacle == "folder in its place":
        answers.path.mkdir()
    if obstacle == "pipe in its place":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes on this platform")
        os.mkfifo(answers.path)
    if obstacle == "link to itself":
        os.symlink(answers.path.name, answers.path)
    answers.put(KEY, ANSWER)
    answers.put_value(KEY, 1)
    assert answers.get(KEY) is None
    assert (answers.clear(), answers.num_answers, answers.num_bytes) == (0, 0, 0)
    assert "0 answers" in repr(answers)


def test_cache_that_cannot_be_written_is_told_once(answers: AnswerCache, caplog: pytest.LogCaptureFixture) -> None:
    answers.folder.write_text("a file")
    reason = f"{answers.folder} is no folder"
    assert repr(answers).endswith(f", which cannot be written: {reason}>")
    assert not caplog.records  # looking is not losing
    for cache in (answers, answers, reopened(answers)):
        cache.put(KEY, ANSWER)
        cache.get(KEY)
    (line,) = caplog.messages
    assert line.startswith("answers are not kept")
    assert line.endswith(f"{answers.path} cannot be written ({reason})")


def test_trouble_that_is_over_is_not_told_any_more(answers: AnswerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cachefile, "BUSY_S", 0.01)
    monkeypatch.setattr(cachefile, "_REST", 0)
    answers.put(KEY, ANSWER)
    with database(answers) as holder:
        holder.execute("BEGIN IMMEDIATE")
        answers.put(OTHER_KEY, ANSWER)
        assert repr(answers).endswith("which cannot be written: database is locked>")
        holder.execute("ROLLBACK")
    answers.put(OTHER_KEY, ANSWER)
    assert "cannot" not in repr(answers)


@posix
@forks
def test_repr_says_that_a_file_is_read_only(answers: AnswerCache) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        AnswerCache(folder).put(KEY, ANSWER)
        gc.collect()
        for path, mode in ((folder / "answers.sqlite", 0o444), (folder, 0o555)):
            path.chmod(mode)

        def look() -> None:
            if not os.geteuid():
                os.setuid(65534)  # rights do not stop root
            assert repr(AnswerCache(folder)).endswith("answers.sqlite is read-only>")

        assert succeeds_in_child(look)
        folder.chmod(0o755)


@posix
@forks
def test_file_that_may_not_be_written_is_read(answers: AnswerCache) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        AnswerCache(folder).put(KEY, ANSWER)
        gc.collect()
        for path, mode in ((folder / "answers.sqlite", 0o444), (folder, 0o555)):
            path.chmod(mode)

        def use_it() -> None:
            if not os.geteuid():
                os.setuid(65534)  # rights do not stop root
            answers = AnswerCache(folder)
            for _ in range(2):
                answers.put(OTHER_KEY, ANSWER)
                assert answers.get(OTHER_KEY) is None
                answers.get(KEY)
            assert answers.clear() == 0

        assert succeeds_in_child(use_it)
        folder.chmod(0o755)
        assert AnswerCache(folder).get(KEY) == ANSWER


@posix
@forks
def test_full_disk_costs_no_answer(answers: AnswerCache) -> None:
    answers.put(KEY, ANSWER)

    def fill_it() -> None:
        import resource

        full = reopened(answers)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for number in range(20):
            full.put(f"{number:064x}", replace(ANSWER, text="x" * 50_000))
        assert full.get(KEY) == ANSWER
        assert full.num_answers < 20

    assert succeeds_in_child(fill_it)
    answers.put(OTHER_KEY, ANSWER)
    assert answers.get(KEY) == answers.get(OTHER_KEY) == ANSWER


@pytest.mark.parametrize("rest", [pytest.param(10**6, id="rests"), pytest.param(0, id="rested")])
def test_locked_file_is_read_and_not_written_for_some_time(
    answers: AnswerCache, monkeypatch: pytest.MonkeyPatch, rest: int
) -> None:
    monkeypatch.setattr(cachefile, "BUSY_S", 0.01)
    monkeypatch.setattr(cachefile, "_REST", rest)
    answers.put(KEY, ANSWER)
    with database(answers) as holder:
        holder.execute("BEGIN IMMEDIATE")
        answers.put(OTHER_KEY, ANSWER)
        assert answers.get(KEY) == ANSWER
        holder.execute("ROLLBACK")
    answers.put(OTHER_KEY, ANSWER)
    assert set(answers.find_many([KEY, OTHER_KEY])) == {KEY, *([] if rest else [OTHER_KEY])}


def test_file_that_is_locked_as_a_whole_costs_no_answer(answers: AnswerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cachefile, "BUSY_S", 0.01)
    monkeypatch.setattr(cachefile, "_REST", 0)
    monkeypatch.setattr(cachefile, "is_remote", lambda _: True)  # without WAL a writer locks readers out
    answers.put(KEY, ANSWER)
    with database(answers) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert answers.get(KEY) is None
        answers.put(OTHER_KEY, ANSWER)
        assert reopened(answers).clear() == 0
        holder.execute("ROLLBACK")
    assert answers.get(KEY) == ANSWER
    assert not damaged_path(answers).exists()


# ---- together


def test_threads_share_one_cache(answers: AnswerCache) -> None:
    def put_and_get(number: int) -> bool:
        answers.put(f"{number:064x}", replace(ANSWER, text=str(number)))
        found = answers.get(f"{number:064x}")
        return found is not None and found.text == str(number)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put_and_get, range(200)))
    assert answers.num_answers == 200


def _put_and_get(folder: str, text: str) -> int:
    answers = AnswerCache(Path(folder))
    response = replace(ANSWER, text=text * 20_000)
    wrong = 0
    for number in range(40):
        answers.put(KEY, response)
        answers.put(f"{ord(text):02x}{number:062x}", response)
        found = answers.get(KEY)
        wrong += found is None or found.text not in ("a" * 20_000, "b" * 20_000)
    return wrong


def test_two_processes_see_only_whole_answers_and_lose_none(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_put_and_get, [(str(tmp_path), "a"), (str(tmp_path), "b")]) == [0, 0]
    keys = [f"{ord(text):02x}{number:062x}" for text in "ab" for number in range(40)]
    assert set(AnswerCache(tmp_path).find_many(keys)) == set(keys)


@forks
def test_child_does_not_use_its_parents_connection(answers: AnswerCache) -> None:
    answers.put(KEY, ANSWER)

    def use_it() -> None:
        assert answers._file._connection is None
        assert answers.get(KEY) == ANSWER
        answers.put(OTHER_KEY, ANSWER)

    assert succeeds_in_child(use_it)
    assert set(answers.find_many([KEY, OTHER_KEY])) == {KEY, OTHER_KEY}


@forks
def test_fork_waits_for_a_thread_that_writes(answers: AnswerCache) -> None:
    """Else the child would find the lock taken by a thread that it does not have."""
    entered, leave = threading.Event(), threading.Event()

    def write_slowly(_: sqlite3.Connection) -> None:
        entered.set()
        leave.wait(20)

    thread = threading.Thread(target=lambda: answers._file.write(write_slowly, begin=True))
    thread.start()
    assert entered.wait(20)
    threading.Timer(0.05, leave.set).start()
    assert succeeds_in_child(lambda: answers.put(KEY, ANSWER))
    assert leave.is_set()
    thread.join()
    assert answers.get(KEY) == ANSWER


# ---- a sudden end


def _text_of(key: str) -> str:
    return key * random.Random(key).randint(1, 300)


def _put_until_killed(folder: Path, keys: Iterator[str], told: int) -> None:
    answers = AnswerCache(folder)
    for key in keys:
        answers.put(key, Response(text=_text_of(key)))
        os.write(told, key.encode())


@posix
@forks
def test_killed_process_loses_nothing_that_it_had_put(tmp_path: Path) -> None:
    chance = random.Random(0)
    done: list[str] = []
    for attempt in range(10):
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            try:
                keys = (f"{attempt:032x}{number:032x}" for number in range(10_000))
                _put_until_killed(tmp_path, keys, theirs)
            finally:
                os._exit(1)
        os.close(theirs)
        with open(ours, "rb") as told:
            data = told.read(64 * chance.randint(1, 60))
            os.kill(child, signal.SIGKILL)
            data += told.read()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        done += [data[at : at + 64].decode() for at in range(0, len(data), 64)]
        found = AnswerCache(tmp_path).find_many(done)
        assert {key: entry.response().text for key, entry in found.items()} == {key: _text_of(key) for key in done}
    answers = AnswerCache(tmp_path)
    assert len(done) <= answers.num_answers <= len(done) + 10  # a last one may be there that was not told of
    assert not damaged_path(answers).exists()
    with database(answers) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
