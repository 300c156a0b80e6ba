"""Exceptions at every moment at which a signal's handler could raise one in a piece of code.

Between two steps of Python code, the interpreter runs handlers where a function begins and where a call of C code has
returned; a profile function is called at the same places.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from nbllm.core import GenerateRequest, SamplingParams
from nbllm.engine.interface import Engine, iter_chunks
from nbllm.testing import EOS, IM_END
from tests.server.serving import wait_until

_NO_END = {IM_END: -100.0, EOS: -100.0}
_ENDLESS = GenerateRequest(text="hello", sampling=SamplingParams(temperature=0, max_tokens=None, logit_bias=_NO_END))


class InterruptedHereError(BaseException):
    """No Exception, as KeyboardInterrupt is none."""


def moments(act: Callable[[], object], most: int = 2_000) -> Iterator[int]:
    """Run `act` again and again, interrupted at its first moment, at its second, and so on; until it gets through.

    Yields after each interrupt the number of the moment; what `act` does then with the exception is its own affair.
    """
    for moment in range(1, most):
        clock = _Clock(moment)
        gc.disable()  # what is raised while it collects is dropped, and act goes on
        sys.setprofile(clock)
        try:
            act()
        except InterruptedHereError:
            pass
        finally:
            sys.setprofile(None)
            gc.enable()
        if not clock.has_rung:
            return
        yield moment
    raise AssertionError(f"more than {most} moments")


def begun(engine: Engine) -> str:
    """The first piece of an answer that is left then, and would go on for minutes."""
    chunks = iter_chunks(engine, _ENDLESS)
    try:
        return next(chunks).text
    finally:
        chunks.close()  # type: ignore[attr-defined]


def check_requests(engine: Engine, behind: Engine) -> None:
    """After a request that was interrupted at any moment nothing of it is left, and the next one is answered.

    Args:
        engine: is asked.
        behind: computes.
    """
    wanted = begun(engine)
    for moment in moments(lambda: begun(engine)):
        wait_until(lambda: behind.stats().num_running == behind.stats().num_waiting == 0)
        assert begun(engine) == wanted, moment


class _Clock:
    def __init__(self, moment: int) -> None:
        self._left = moment
        self.has_rung = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if self.has_rung or event not in ("call", "c_return"):
            return
        self._left -= 1
        if not self._left:
            self.has_rung = True
            raise InterruptedHereError
