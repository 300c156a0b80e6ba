"""An answer while it comes, as messages to the page.

    {"is": "live", "seq": 7, "live": null | {"id", "question", "after", "blocks", "tail", "reasoning"}}
        the whole of it
    {"is": "delta", "seq": 8, "reasoning": str, "blocks": [closed since], "tail": null | str, "text": str}
        what is new: a tail takes the place of the last one, a text is put after it

The first piece is sent at once, and then what came in `interval_s` together. `seq` counts both kinds, so that a page
sees what it missed, and asks for the whole.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nbllm.markup.characters import NormalizedStream
from nbllm.markup.nodes import NodeStream
from nbllm.notebook.widget.outbox import Outbox

if TYPE_CHECKING:
    from nbllm.core import Chunk
    from nbllm.markup.nodes import Node

Send = Callable[[dict[str, Any]], None]


class Live:
    """Sends one answer at a time; any thread may call any method.

    Args:
        send: gets the messages in the order of their numbers, and no lock is held meanwhile.
        outbox: what else goes to the same page, and has to keep its place between these messages.
    """

    def __init__(
        self,
        send: Send,
        clock: Callable[[], float] = time.monotonic,
        interval_s: float = 0.05,
        outbox: Outbox | None = None,
    ) -> None:
        self._send, self._clock, self._interval_s = send, clock, interval_s
        self._outbox = outbox or Outbox()
        self._lock = threading.Lock()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()  # no Condition: see nbllm.core.flag
        self._seq = 0
        self._next_s = 0.0
        self._answer: _Answer | None = None
        self._thread: threading.Thread | None = None

    def begin(self, live: str, question: dict[str, Any] | None = None, after: int | None = None) -> None:
        """Begin an answer, and end one that somebody forgot.

        Args:
            question: as in the transcript, which does not have it yet.
            after: the number of the turn that the answer follows; 0 is the root.
        """
        with self._lock:
            self._answer = _Answer({"id": live, "question": question, "after": after})
            self._next_s = 0.0
            self._put_whole()
        self._outbox.deliver()

    def add(self, chunk: Chunk) -> None:
        """Show a piece of the answer, now or within the interval."""
        with self._lock:
            answer = self._answer
            if answer is None or not (chunk.text or chunk.reasoning):
                return
            was_waiting = answer.is_waiting
            answer.add(chunk)
            if self._clock() >= self._next_s:
                self._put_delta(answer)
            elif not was_waiting:
                self._wake()
        self._outbox.deliver()

    def finish(self) -> list[Node]:
        """Send all that came, every block of it closed, and return the blocks; `end` takes the answer away."""
        with self._lock:
            answer = self._answer
            if answer is None:
                return []
            answer.finish()
            self._put_delta(answer)
        self._outbox.deliver()
        return answer.blocks

    def end(self) -> None:
        """The transcript holds the answer now, or there is none."""
        with self._lock:
            self._answer = None
            self._put_whole()
            self._wakes.put(None)
        self._outbox.deliver()

    def resend(self) -> None:
        """For a page that comes late, or has missed something."""
        with self._lock:
            if self._answer is not None:
                self._answer.take()  # what waits is in the whole
            self._put_whole()
        self._outbox.deliver()

    def close(self) -> None:
        """Send nothing more. Twice is harmless."""
        with self._lock:
            self._answer = None
            self._wakes.put(None)

    # ---- inside, under the lock

    def _put_whole(self) -> None:
        self._put({"is": "live", "live": self._answer.whole() if self._answer else None})

    def _put_delta(self, answer: _Answer) -> None:
        delta = answer.take()
        if delta is not None:
            self._put({"is": "delta", **delta})
        self._next_s = self._clock() + self._interval_s

    def _put(self, message: dict[str, Any]) -> None:
        self._seq += 1
        self._outbox.put(partial(self._send, {**message, "seq": self._seq}))

    def _wake(self) -> None:
        """Let the timer's thread know of what waits; it lives from the first such piece to the end of the answer."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="nbllm-widget-live", daemon=True)
            self._thread.start()
        else:
            self._wakes.put(None)

    def _run(self) -> None:
        while self._tick():
            self._outbox.deliver()

    def _tick(self) -> bool:
        """Wait for the time of the next delta, and put it; False when there is nothing to wait for any more."""
        while True:
            with self._lock:
                answer = self._answer
                if answer is None:
                    self._thread = None
                    return False
                rest_s = self._next_s - self._clock() if answer.is_waiting else None
                if rest_s is not None and rest_s <= 0:
                    self._put_delta(answer)
                    return True
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=rest_s)


class _Answer:
    """One answer: what was sent of it, and what waits."""

    def __init__(self, head: dict[str, Any]) -> None:
        self.blocks: list[Node] = []
        self._head = head
        self._stream = NodeStream()
        self._tail = ""
        self._last: list[Node] = []
        self._is_finished = False
        self._reasoning: list[str] = []
        self._normalized_reasoning = NormalizedStream()
        self._new_text: list[str] = []
        self._new_reasoning: list[str] = []

    @property
    def is_waiting(self) -> bool:
        return bool(self._new_text or self._new_reasoning)

    def add(self, chunk: Chunk) -> None:
        """Remember a piece. Only `take` looks at it, once an interval and not once a token."""
        if chunk.text:
            self._new_text.append(chunk.text)
        if chunk.reasoning:
            self._new_reasoning.append(chunk.reasoning)

    def finish(self) -> None:
        """Close what is still open; the next `take` has it."""
        if not self._is_finished:
            self._is_finished = True
            self._last = [*self._pushed(), *self._stream.finish()]

    def take(self) -> dict[str, Any] | None:
        """What is new since the last time, as a delta without its number; None is nothing."""
        reasoning, self._new_reasoning = self._normalized_reasoning.push("".join(self._new_reasoning)), []
        closed, self._last = (self._last, []) if self._is_finished else (self._pushed(), [])
        before, self._tail = self._tail, "" if self._is_finished else self._stream.tail
        self._reasoning.append(reasoning)
        self.blocks += closed
        is_longer = not closed and self._tail.startswith(before)
        text = self._tail[len(before) :] if is_longer else ""
        if not (reasoning or closed or text) and is_longer:
            return None
        return {"reasoning": reasoning, "blocks": closed, "tail": None if is_longer else self._tail, "text": text}

    def _pushed(self) -> list[Node]:
        text, self._new_text = "".join(self._new_text), []
        return self._stream.push(text) if text else []

    def whole(self) -> dict[str, Any]:
        """The state that all deltas so far lead to."""
        self._reasoning = ["".join(self._reasoning)]
        return {**self._head, "blocks": list(self.blocks), "tail": self._tail, "reasoning": self._reasoning[0]}
