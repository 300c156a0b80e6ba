"""Work beside a block: it ends with the block, and its errors are not the block's."""

from __future__ import annotations

import signal
import threading

import pytest

from nbllm.engine.aside import aside


def test_work_is_done_beside_the_block_and_ends_before_it() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def prepare() -> None:
        begun.set()
        assert go_on.wait(10)
        done.set()

    with aside(prepare):
        assert begun.wait(10)
        go_on.set()
    assert done.is_set()


def test_error_in_the_work_is_dropped() -> None:
    with aside(lambda: 1 / 0):
        pass


def test_error_in_the_block_waits_for_the_work() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def prepare() -> None:
        begun.set()
        assert go_on.wait(10)
        done.set()

    def fail() -> None:
        assert begun.wait(10)
        go_on.set()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), aside(prepare):
        fail()
    assert done.is_set()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to a thread")
def test_interrupt_waits_for_the_work_too() -> None:
    """What the work reads may be freed right after the block."""
    main, go_on, done = threading.main_thread(), threading.Event(), threading.Event()

    def prepare() -> None:
        assert main.ident is not None
        signal.pthread_kill(main.ident, signal.SIGINT)
        assert not go_on.wait(0.05)
        done.set()

    with pytest.raises(KeyboardInterrupt), aside(prepare):
        pass
    assert done.is_set()


def test_block_goes_on_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ran = False
    with aside(lambda: None):
        ran = True
    assert ran
