from __future__ import annotations

import errno
import hmac
import json
import os
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.server import keyfile, keys
from nbllm.server.keyfile import KeyFile, KeyFileError
from nbllm.server.keys import Key, KeyStore

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "keys.json"


@pytest.fixture
def store(path: Path) -> KeyStore:
    return KeyStore(path)


def age(path: Path) -> None:
    """As if nobody had written for a minute, so that what was read is kept."""
    past = path.stat().st_mtime - 60
    os.utime(path, (past, past))


# Making keys, and what of them is kept


def test_create_gives_a_secret_that_opens(store: KeyStore) -> None:
    key, secret = store.create(
        "laptop", scopes=["manage", "chat"], models=["a", "a", "b"], expires_in=timedelta(days=1), max_concurrent=2
    )
    assert secret.startswith("sk-" + key.id)
    assert len(secret) == 3 + 48
    assert secret[3:].isalnum()
    assert (key.name, key.scopes, key.models, key.max_concurrent) == ("laptop", ("chat", "manage"), ("a", "b"), 2)
    assert key.expires == key.created + timedelta(days=1)
    assert store.verify(secret).key == key
    assert store.list() == (key,)


def test_create_leaves_no_secret_on_disk(store: KeyStore, path: Path) -> None:
    secret = store.create("laptop").secret
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert secret.encode() not in written
    assert secret[11:].encode() not in written


@posix
def test_create_closes_file_and_folder(store: KeyStore, path: Path) -> None:
    store.create("laptop")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_secrets_differ(store: KeyStore) -> None:
    assert len({store.create(f"k{number}").secret for number in range(20)}) == 20
    assert len({key.id for key in store.list()}) == 20


@pytest.mark.parametrize(
    ("options", "param"),
    [
        pytest.param({"name": ""}, "name", id="no name"),
        pytest.param({"name": "x" * 65}, "name", id="long name"),
        pytest.param({"name": "a\nb"}, "name", id="newline in the name"),
        pytest.param({"name": "-x"}, "name", id="name like an option"),
        pytest.param({"name": "anonymous"}, "name", id="name of nobody"),
        pytest.param({"name": "taken"}, "name", id="name twice"),
        pytest.param({"scopes": []}, "scopes", id="no scope"),
        pytest.param({"scopes": ["chat", "admin"]}, "scopes", id="unknown scope"),
        pytest.param({"models": []}, "models", id="no model"),
        pytest.param({"models": ["a", ""]}, "models", id="empty model"),
        pytest.param({"expires_in": timedelta(0)}, "expires", id="expired at once"),
        pytest.param({"expires_in": timedelta.max}, "expires", id="after the end of time"),
        pytest.param({"max_concurrent": 0}, "max_concurrent", id="none at a time"),
        pytest.param({"max_concurrent": True}, "max_concurrent", id="not a number"),
    ],
)
def test_create_refuses(store: KeyStore, options: dict[str, Any], param: str) -> None:
    before = store.create("taken").key
    with pytest.raises(ParameterError) as refusal:
        store.create(**({"name": "laptop"} | options))
    assert refusal.value.param == param
    assert store.list() == (before,)


def test_create_refuses_the_id_of_another_as_name(store: KeyStore) -> None:
    """`revoke` takes either."""
    with pytest.raises(ParameterError, match="is taken"):
        store.create(store.create("laptop").key.id)


# Presenting them


@pytest.mark.parametrize("change", ["{}x", "x{}", "", "sk-", "{}\ud800"])
def test_verify_wrong_secret(store: KeyStore, change: str) -> None:
    secret = store.create("laptop").secret
    verdict = store.verify(change.format(secret))
    assert verdict.key is None
    assert "wrong or was revoked" in verdict.problem


def test_verify_compares_with_every_key_in_constant_time(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [store.create(f"k{number}").secret for number in range(3)]
    compared: list[str] = []
    real = hmac.compare_digest

    def record(one: str, other: str) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(keys, "compare_digest", record)
    assert store.verify(secrets[0]).key is not None
    assert compared == [key.sha256 for key in store.list()]


def test_verify_expired_key_says_since_when(path: Path) -> None:
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    store = KeyStore(path, now=lambda: now)
    secret = store.create("laptop", expires_in=timedelta(hours=1)).secret
    now += timedelta(minutes=59)
    assert store.verify(secret).key is not None
    now += timedelta(minutes=1)
    verdict = store.verify(secret)
    assert verdict.key is None
    assert verdict.problem == "it expired on 2026-11-22 at 13:00 UTC"


def test_verify_without_a_file_opens_nothing(store: KeyStore, path: Path) -> None:
    assert store.verify("").key is None
    assert store.list() == ()
    assert not path.parent.exists()


# Taking them back


@pytest.mark.parametrize("by", ["id", "name"])
def test_revoke(store: KeyStore, by: str) -> None:
    kept, revoked = store.create("kept"), store.create("laptop")
    assert store.revoke(getattr(revoked.key, by)) == revoked.key
    assert store.verify(revoked.secret).key is None
    assert store.verify(kept.secret).key == kept.key


def test_revoke_unknown_key_names_a_close_one(store: KeyStore) -> None:
    store.create("laptop")
    with pytest.raises(InvalidRequestError, match="did you mean 'laptop'"):
        store.revoke("labtop")


def test_revoke_name_that_an_edited_file_has_twice(store: KeyStore, path: Path) -> None:
    ids = [store.create(name).key.id for name in ("one", "two")]
    path.write_text(path.read_text().replace('"two"', '"one"'))
    with pytest.raises(InvalidRequestError, match=f"2 keys are named 'one'.*{ids[0]}, {ids[1]}"):
        store.revoke("one")
    assert store.revoke(ids[1]).name == "one"
    assert [key.id for key in store.list()] == ids[:1]


def test_revocation_by_another_store_counts_at_once(store: KeyStore, path: Path) -> None:
    secret = store.create("laptop").secret
    age(path)
    assert store.verify(secret).key is not None
    KeyStore(path).revoke("laptop")
    assert store.verify(secret).key is None


def test_change_that_leaves_no_mark_counts(store: KeyStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes within one tick of the file system's clock."""
    monkeypatch.setattr(keyfile, "_stamp", lambda status: keyfile.Stamp(0, 0, 0, 0, 0))
    secret = store.create("laptop").secret
    assert store.verify(secret).key is not None
    KeyStore(path).revoke("laptop")
    assert store.verify(secret).key is None


def test_file_that_goes_away_takes_its_keys_with_it(store: KeyStore, path: Path) -> None:
    secret = store.create("laptop").secret
    assert store.verify(secret).key is not None
    path.unlink()
    assert store.verify(secret).key is None


def test_unchanged_file_is_not_read_again(store: KeyStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = store.create("laptop").secret
    later = path.stat().st_mtime_ns + 10**12
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert store.verify(secret).key is not None
    monkeypatch.setattr(KeyFile, "read", lambda self: pytest.fail("read"))
    assert store.verify(secret).key is not None
    path.chmod(0o600)  # moves the time of change
    with pytest.raises(pytest.fail.Exception):
        store.verify(secret)


# A file that cannot be trusted


@posix
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o602, 0o610])
def test_file_open_to_others_is_refused(store: KeyStore, path: Path, mode: int) -> None:
    secret = store.create("laptop").secret
    assert store.verify(secret).key is not None
    path.chmod(mode)
    for refused in (
        lambda: store.verify(secret),
        store.list,
        lambda: store.create("b"),
        lambda: store.revoke("laptop"),
    ):
        with pytest.raises(KeyFileError, match=f"chmod 600 '{path}'"):
            refused()
    path.chmod(0o600)
    assert store.verify(secret).key is not None


@posix
def test_file_of_another_user_is_refused(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = store.create("laptop").secret
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(KeyFileError, match="belongs to another user"):
        store.verify(secret)


def _edited(**changes: object) -> str:
    entry = {
        "id": "abcdefgh",
        "name": "a",
        "sha256": "0" * 64,
        "scopes": ["chat"],
        "created": "2026-01-01T00:00:00Z",
        "models": None,
        "expires": None,
        "max_concurrent": None,
    } | changes
    return json.dumps({"version": 1, "keys": [{name: value for name, value in entry.items() if value != "gone"}]})


def test_edited_file_that_is_right_is_read(store: KeyStore, path: Path) -> None:
    """What the next test damages."""
    _put(path, _edited())
    assert [key.name for key in store.list()] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="half"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param('{"version": 1}', id="no keys"),
        pytest.param('{"version": 2, "keys": []}', id="another version"),
        pytest.param('{"version": 1, "keys": [], "more": 1}', id="unknown field"),
        pytest.param(_edited(expires="gone"), id="a lost expiry"),
        pytest.param(_edited(exipres=None), id="a field misspelt"),
        pytest.param(_edited(expires="2026-01-01T00:00:00"), id="a time without a zone"),
        pytest.param(_edited(expires="tomorrow"), id="no time"),
        pytest.param(_edited(scopes=["chat", "root"]), id="unknown scope"),
        pytest.param(_edited(sha256="00"), id="no hash"),
        pytest.param(_edited(max_concurrent=0), id="none at a time"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param(b'{"version": 1, "keys": [{"id": "\xff"}]}', id="not utf-8"),
    ],
)
def test_damaged_file_opens_nothing_and_is_kept(store: KeyStore, path: Path, text: str | bytes) -> None:
    _put(path, text)
    before = path.read_bytes()
    for refused in (lambda: store.verify("sk-x"), store.list, lambda: store.create("b"), lambda: store.revoke("a")):
        with pytest.raises(KeyFileError, match="is damaged"):
            refused()
    assert path.read_bytes() == before


def _put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@posix
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused(store: KeyStore, path: Path, make: Any) -> None:
    path.parent.mkdir()
    make(path)
    with pytest.raises(KeyFileError, match="is not a file"):
        store.verify("sk-x")


def test_huge_file_is_refused(store: KeyStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfile, "_MAX_BYTES", 10)
    _put(path, _edited())
    with pytest.raises(KeyFileError, match="is not a keys file"):
        store.verify("sk-x")


@pytest.mark.parametrize("name", ["a\0b", "a" * 300])
def test_path_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    store = KeyStore(tmp_path / name)
    for refused in (lambda: store.verify("sk-x"), lambda: store.create("a")):
        with pytest.raises(KeyFileError, match=r"cannot (read|write) the keys file"):
            refused()


# Writing


def test_full_disk_leaves_the_keys_as_they_were(store: KeyStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    secret = store.create("laptop").secret
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        for refused in (lambda: store.create("b"), lambda: store.revoke("laptop")):
            with pytest.raises(KeyFileError, match=r"No space left on device; the keys are as they were"):
                refused()
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}
    assert store.verify(secret).key is not None
    store.create("b")  # the lock was let go


@posix
def test_link_to_the_file_stays_a_link(store: KeyStore, path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "real.json")
    secret = store.create("laptop").secret
    assert path.is_symlink()
    assert KeyStore(tmp_path / "real.json").verify(secret).key is not None


_WRITER = """
import sys
from pathlib import Path
from nbllm.server.keys import KeyStore
store = KeyStore(Path(sys.argv[1]))
print(flush=True)
sys.stdin.readline()
for number in range(8):
    store.create(f"{sys.argv[2]}-{number}")
    if number % 2:
        store.revoke(f"{sys.argv[2]}-{number}")
"""


def test_two_processes_that_write_at_once_lose_nothing(store: KeyStore, path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(path)]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen([*command, "a"], stdin=pipe, stdout=pipe, text=True) as one,
        subprocess.Popen([*command, "b"], stdin=pipe, stdout=pipe, text=True) as other,
    ):
        for process in (one, other):
            assert process.stdout is not None
            process.stdout.readline()  # ready
        for process in (one, other):
            _go(process)
        assert [process.wait(30) for process in (one, other)] == [0, 0]
    assert {key.name for key in store.list()} == {f"{who}-{number}" for who in "ab" for number in (0, 2, 4, 6)}


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.parametrize("has_flock", [True, False])
def test_writers_wait_for_one_another(path: Path, monkeypatch: pytest.MonkeyPatch, has_flock: bool) -> None:
    if not has_flock:
        monkeypatch.setattr(keyfile, "fcntl", None)
    is_held, may_go = threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        with KeyFile(path).locked():
            is_held.set()
            assert may_go.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert is_held.wait(10)
    second = KeyFile(path)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda _: may_go.set())  # it was seen to wait
        with second.locked():
            order.append("second")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("has_flock", [True, False])
def test_lock_that_is_never_let_go(path: Path, monkeypatch: pytest.MonkeyPatch, has_flock: bool) -> None:
    if not has_flock:
        monkeypatch.setattr(keyfile, "fcntl", None)
    monkeypatch.setattr(keyfile, "_LOCK_WAIT_S", 0.0)
    with (
        KeyFile(path).locked(),
        pytest.raises(KeyFileError, match=r"if none does, delete .*keys\.json\.lock"),
        KeyFile(path).locked(),
    ):
        pytest.fail("two have it")
    with KeyFile(path).locked():
        pass


def test_key_that_never_expires() -> None:
    key = Key(
        id="a", name="a", sha256="0" * 64, scopes=(), created=datetime.now(UTC), models=None, expires=None,
        max_concurrent=None,
    )  # fmt: skip
    assert not key.is_expired(datetime.max.replace(tzinfo=UTC))
