"""The threads of a chat: one question at a time, and what happens is told in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nbllm.core.flag import Flag
from nbllm.errors import InvalidRequestError
from nbllm.notebook.widget.attachments import split
from nbllm.notebook.widget.events import Begun, Changed, Ended, Phase

if TYPE_CHECKING:
    from nbllm.notebook.widget.answering import Answering, Outcome
    from nbllm.notebook.widget.asked import Asked
    from nbllm.notebook.widget.events import Came, Event, PhaseName

_logger = logging.getLogger("nbllm")


class Worker:
    """Answers each question on a daemon thread, which an interrupt of the kernel does not touch.

    No lock is held while it calls `on_event`, `record` and `on_over`.

    Args:
        on_event: what it raises is logged.
        record: keeps what came, and says how that is to be told.
        on_over: called once it is closed and all is told.

    Attributes:
        lock: to hold from `check_free` to `start`.
        phase: what is going on.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        record: Callable[[Asked, Outcome], Ended],
        on_over: Callable[[], None],
    ) -> None:
        self._on_event, self._record, self._on_over = on_event, record, on_over
        self.lock = threading.RLock()
        self.phase: PhaseName = "idle"
        self._answering: Answering | None = None
        self._is_switching = False
        self._threads: dict[threading.Thread, Flag] = {}  # no join: an interrupted one takes the thread for ended
        self._recording: int | None = None
        self._has_missed = False

    def check_open(self) -> None:
        """Raises InvalidRequestError when it is closed."""
        if self.phase == "closed":
            raise InvalidRequestError("this chat is closed; nbllm.ChatWidget() opens another")

    def check_free(self) -> None:
        """Raises InvalidRequestError when it is closed, or a question is on its way."""
        self.check_open()
        if self._answering is not None or self._is_switching:
            raise InvalidRequestError("the last question is still being answered: wait for the answer, or stop it")

    def start(self, answering: Answering) -> None:
        """Answer it. Under the lock, and after `check_free`."""
        earlier = list(self._threads.values())[-1:]
        thread = threading.Thread(target=self._run, args=(answering, earlier), name="nbllm-talk", daemon=True)
        self._threads[thread] = Flag()
        self._answering, self.phase = answering, "waiting"
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads, or Python is about to end
            del self._threads[thread]
            self._answering, self.phase = None, "idle"
            raise

    def stop(self) -> None:
        answering = self._answering
        if answering is not None:
            answering.stop()

    def close(self) -> None:
        """Stop, and begin nothing more. Twice is harmless."""
        with self.lock:
            was_open, self.phase = self.phase != "closed", "closed"
            is_over = not self._threads
        self.stop()
        if was_open:
            self.tell(Phase("closed"))
        if is_over:
            self._on_over()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether all is answered and told, within the time; on an answer's own thread it does not wait."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (threads := self._threads.copy()) and threading.current_thread() not in threads:
            rest_s = None if deadline is None else deadline - time.monotonic()
            if rest_s is not None and rest_s <= 0:
                break
            list(threads.values())[-1].wait(rest_s)
        return not threads

    @contextmanager
    def switching(self) -> Iterator[None]:
        """Begin nothing meanwhile. Raises InvalidRequestError as `check_free` does."""
        with self.lock:
            self.check_free()
            self._is_switching = True
        try:
            yield
        finally:
            with self.lock:
                self._is_switching = False

    # ---- telling

    def changed(self) -> None:
        """Tell that the conversation changed, unless that is only the answer of which `Ended` tells."""
        with self.lock:
            if self._recording is not None:  # another's change is told behind `Ended`
                self._has_missed = self._has_missed or threading.get_ident() != self._recording
                return
        self.tell(Changed())

    def say(self, event: Phase | Came) -> None:
        """What an `Answering` has to say."""
        if isinstance(event, Phase):
            with self.lock:
                if self.phase == "closed":
                    return
                self.phase = event.phase
        self.tell(event)

    def tell(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception:  # a page's trouble is not the answer's
            _logger.exception("%s could not be shown", type(event).__name__)

    # ---- on an answer's thread

    def _run(self, answering: Answering, earlier: list[Flag]) -> None:
        asked = answering.asked
        try:
            for is_over in earlier:  # its last events come first
                is_over.wait()
            self.tell(Begun(asked.live, asked.question, asked.parent, split(asked.question.content).names))
            self.say(Phase("waiting"))
            self._end(asked, answering.run())
        finally:
            self._finish(answering)

    def _end(self, asked: Asked, outcome: Outcome) -> None:
        with self.lock:
            self._recording = threading.get_ident()
        ended = self._record(asked, outcome)
        self._free()
        self.tell(ended)
        if self.phase != "closed":
            self.tell(Phase("idle"))

    def _free(self) -> None:
        with self.lock:
            self._answering = None
            self.phase = "closed" if self.phase == "closed" else "idle"

    def _finish(self, answering: Answering) -> None:
        """Let go of the thread, and tell of what changed while its answer was recorded."""
        if self._answering is answering:  # something like MemoryError ended it
            self._free()
        with self.lock:
            has_missed, self._has_missed, self._recording = self._has_missed, False, None
        if has_missed:
            self.tell(Changed())
        with self.lock:
            over = self._threads.pop(threading.current_thread())
            is_over = self.phase == "closed" and not self._threads
        over.set()
        if is_over:
            self._on_over()
