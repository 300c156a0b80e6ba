"""Runs a function in a forked child, and waits for it no longer than it may take."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable


def succeeds_in_child(act: Callable[[], None], timeout_s: float = 20.0) -> bool:
    """Whether `act` returns in a forked child; one that hangs is killed."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    os.close(theirs)
    ended, _, _ = select.select([ours], [], [], timeout_s)  # the pipe's other end closes with the child
    os.close(ours)
    if not ended:
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
