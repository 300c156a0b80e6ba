from __future__ import annotations

import threading
import time

from nbllm.core.flag import Flag
from tests.interrupts import moments


def test_all_that_wait_go_on() -> None:
    flag, went_on = Flag(), []
    threads = [threading.Thread(target=lambda: went_on.append(flag.wait(10))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert not flag.is_set()
    flag.set()
    flag.set()
    for thread in threads:
        thread.join(10)
    assert went_on == [True] * 8
    assert flag.wait()
    assert flag.wait(0)


def test_waiting_ends_with_its_time() -> None:
    flag = Flag()
    assert not flag.wait(0)
    assert not flag.wait(-1)
    began = time.monotonic()
    assert not flag.wait(0.05)
    assert time.monotonic() - began >= 0.05


def test_interrupted_set_holds_nobody_up() -> None:
    flag = Flag()

    def act() -> None:
        nonlocal flag
        flag = Flag()
        flag.set()

    for _ in moments(act):
        flag.set()
        assert flag.wait(10)


def test_interrupted_wait_holds_nobody_up() -> None:
    flag = Flag()

    def act() -> None:
        flag.set()
        flag.wait(10)

    for _ in moments(act):
        threading.Thread(target=flag.set).start()
        assert flag.wait(10)
        flag = Flag()
