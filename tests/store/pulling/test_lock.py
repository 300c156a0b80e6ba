from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from nbllm.store.pulling import lock
from nbllm.store.pulling.lock import locked


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A models folder."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def never() -> None:
    raise AssertionError("nobody else has the lock")


def test_a_lock_leaves_nothing(root: Path) -> None:
    models = root / "data" / "models"
    with locked(models / "org" / "repo", models, never):
        assert (models / "org" / "repo").is_dir()
    assert list(root.iterdir()) == []


def test_a_lock_leaves_the_models_folder_and_what_is_in_it(root: Path) -> None:
    folder = root / "org" / "repo"
    with locked(folder, root, never):
        pass
    assert list(root.iterdir()) == []
    with locked(folder, root, never):
        (folder / "file").touch()
    assert list(folder.iterdir()) == [folder / "file"]


def test_the_second_waits_for_the_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_POLL_S", 0.001)
    waits = threading.Event()
    order: list[str] = []

    def second() -> None:
        with locked(root / "repo", root, waits.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(root / "repo", root, never):
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert list(root.iterdir()) == []


def test_many_hold_it_one_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_POLL_S", 0.0001)
    inside, seen = [0], []

    def work() -> None:
        for _ in range(20):
            with locked(root / "org" / "repo", root, lambda: None):
                inside[0] += 1
                seen.append(inside[0])
                time.sleep(0)  # lets the others in, if anything does
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 80
    assert list(root.iterdir()) == []


def test_waiting_can_be_interrupted(root: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with locked(root / "repo", root, never):
        with pytest.raises(KeyboardInterrupt), locked(root / "repo", root, interrupt):
            never()
        assert (root / "repo").is_dir()
    with locked(root / "repo", root, never):
        pass


def test_a_folder_that_cannot_be_made_is_an_os_error(root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(OSError, match="file"), locked(root / "file" / "repo", root, never):
        never()
