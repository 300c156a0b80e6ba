from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nbllm.store.foreign import look as looks
from nbllm.store.foreign.look import Look
from tests.store import gguf_writer as g
from tests.store.foreign.made import TINY, digest_of, ollama_manifest


def looked(folder: Path) -> Look:
    """At one file in a sub-folder, another one read, and one that is not there."""
    look = Look(folder)
    look.gguf_files(folder, depth=2)
    look.problem_of(folder / "sub" / "a.gguf")
    look.problem_of(folder / "none")
    look.beginning(folder / "sub" / "read", 10)
    return look


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where nothing was changed for long."""
    folder = tmp_path / "store"
    g.write(folder / "sub" / "a.gguf", TINY)
    g.write(folder / "sub" / "read", b"what was read")
    settle(folder)
    return folder


def settle(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (10**9, 10**9))


def test_look_is_current_while_nothing_changes(folder: Path) -> None:
    assert looked(folder).is_current()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: g.write(folder / "sub" / "b.gguf", b""), id="another-file"),
        pytest.param(lambda folder: (folder / "other").mkdir(), id="another-folder"),
        pytest.param(lambda folder: (folder / "sub" / "a.gguf").unlink(), id="a-file-less"),
        pytest.param(lambda folder: g.write(folder / "sub" / "read", b"what is new"), id="other-content"),
        pytest.param(lambda folder: g.write(folder / "none", b""), id="what-was-not-there"),
    ],
)
def test_look_is_not_current_after(change: Callable[[Path], object], folder: Path) -> None:
    look = looked(folder)
    change(folder)
    assert not look.is_current()


def test_look_at_what_has_just_changed_is_not_trusted(folder: Path) -> None:
    g.write(folder / "sub" / "b.gguf", b"")
    assert not looked(folder).is_current()


def test_look_is_not_trusted_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = looked(folder)
    monkeypatch.setattr(looks, "_FRESH_S", 0.0)
    assert not look.is_current()


def test_look_ends_at_a_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        g.write(folder / f"{number}.gguf", b"")
    monkeypatch.setattr(looks, "MAX_ENTRIES", 5)
    assert len(Look(folder).gguf_files(folder, depth=5)) == 5
    assert len(Look(folder).entries(folder)) == 5


def test_beginning_is_no_more_than_asked_for(tmp_path: Path) -> None:
    path = ollama_manifest(tmp_path, "a", digest_of(b"").encode())
    assert Look(tmp_path).beginning(path, 6) == b"sha256"
    with pytest.raises(OSError, match="none"):
        Look(tmp_path).beginning(tmp_path / "none", 6)


@pytest.mark.skipif(os.name != "posix", reason="links")
@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("../blobs/a", ""),
        ("../sub/../blobs/a", ""),
        ("{store}/blobs/a", ""),
        ("../linked/a", ""),
        ("second", ""),
        ("../out/a", "leads out"),
        ("../out/../a", "leads out"),
        ("../../a", "leads out"),
        ("link", "leads nowhere"),
        ("../blobs/none", "leads nowhere"),
        ("../blobs", "is not a file"),
    ],
)
def test_links_are_followed_to_where_the_system_follows_them(target: str, problem: str, tmp_path: Path) -> None:
    store = tmp_path / "there" / "store"
    for path in (store / "blobs" / "a", tmp_path / "there" / "a", tmp_path / "there" / "outside" / "a"):
        g.write(path, TINY)
    (store / "sub").mkdir()
    (store / "linked").symlink_to("blobs")
    (store / "out").symlink_to("../outside")
    (store / "sub" / "second").symlink_to("../blobs/a")
    (store / "sub" / "link").symlink_to(target.format(store=store))
    (tmp_path / "here").symlink_to("there")

    for folder in (store, tmp_path / "here" / "store"):
        found = Look(folder).problem_of(folder / "sub" / "link")
        assert problem in found
        assert bool(found) == bool(problem)
