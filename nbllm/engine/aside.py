"""Work that is done in a thread beside a block that waits for native code."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def aside(prepare: Callable[[], object]) -> Iterator[None]:
    """Run `prepare` while the block runs. When the block has ended, it has too, or never begins.

    It only prepares: an error in it is dropped, because what needs the result does it again and fails for itself.
    """
    work = _Work(prepare)
    try:
        with contextlib.suppress(RuntimeError):  # no more threads, or the interpreter ends: then without
            threading.Thread(target=work.run, name="nbllm-aside", daemon=True).start()
        yield
    finally:
        work.end()


class _Work:
    def __init__(self, prepare: Callable[[], object]) -> None:
        self._prepare = prepare
        self._working = threading.Lock()
        self._is_wanted = True

    def run(self) -> None:
        with self._working, contextlib.suppress(Exception):
            if self._is_wanted:
                self._prepare()

    def end(self) -> None:
        """Wait for it even if interrupted meanwhile: it may be reading what is freed next."""
        self._is_wanted = False
        interrupt: BaseException | None = None
        while True:
            try:
                with self._working:
                    break
            except BaseException as error:  # noqa: BLE001  # whatever a signal's handler raises; raised again below
                interrupt = error
        if interrupt is not None:
            raise interrupt
