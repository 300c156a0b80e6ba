from __future__ import annotations

import threading

from nbllm.notebook.widget.outbox import Outbox
from tests.interrupts import moments


def test_what_actions_put_is_done_after_them() -> None:
    outbox, done = Outbox(), []

    def first() -> None:
        outbox.put(lambda: done.append("second"))
        outbox.deliver()
        done.append("first")

    outbox.put(first)
    outbox.deliver()
    assert done == ["first", "second"]


def test_all_is_done_once_and_in_order_whichever_thread_delivers() -> None:
    outbox, lock, done = Outbox(), threading.Lock(), []

    def work() -> None:
        for _ in range(500):
            with lock:
                number = len(put)
                put.append(number)
                outbox.put(lambda number=number: done.append(number))  # type: ignore[misc]
            outbox.deliver()

    put: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert done == put == list(range(2_000))


def test_interrupt_at_any_moment_leaves_the_next_delivery_working() -> None:
    outbox, done = Outbox(), []

    def act() -> None:
        outbox.put(lambda: done.append("interrupted"))
        outbox.deliver()

    for moment in moments(act):
        done.clear()
        outbox.put(lambda: done.append("next"))
        outbox.deliver()
        assert done[-1:] == ["next"], moment
