"""One question of a chat on its way to its answer: find the model, ask, follow."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nbllm.errors import ContextOverflowError, EngineClosedError, EngineDeadError, NbllmError
from nbllm.notebook.widget.events import Came, Phase
from nbllm.session.model import Model
from nbllm.session.response import Collector

if TYPE_CHECKING:
    from nbllm.core import Chunk, FinishReason
    from nbllm.engine.interface import Ticket
    from nbllm.notebook.models import Models
    from nbllm.notebook.widget.asked import Asked
    from nbllm.session.response import Response

_LAST_WORDS_S = 5.0
"""For an engine to end a request that was cancelled; a step of a slow machine is shorter."""
_MAX_ERROR_LENGTH = 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question.

    Attributes:
        response: what came, None when no model was asked.
        error: one line, "" without one.
        model: what answered, or was found at least.
    """

    response: Response | None
    error: str
    model: Model | None


class Answering:
    """Asks and follows, on the thread that calls `run`; `stop` is for any other.

    Args:
        say: gets phases and chunks.
    """

    def __init__(self, asked: Asked, models: Models, say: Callable[[Phase | Came], None]) -> None:
        self.asked = asked
        self._models, self._say = models, say
        self._lock = threading.Lock()
        self._inbox: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._is_stopped = False
        self._ticket: Ticket | None = None
        self._model: Model | None = None
        self._collector: Collector | None = None

    def stop(self) -> None:
        """End it within a step; while a model is being loaded, as soon as that is done. Twice is harmless."""
        with self._lock:
            self._is_stopped = True
            ticket = self._ticket
        if ticket is not None:
            ticket.cancel()
        self._inbox.put(None)

    def run(self) -> Outcome:
        try:
            self._begin()
            self._follow()
        except Exception as error:  # noqa: BLE001  # whatever it was, a person waits for the answer
            if isinstance(error, EngineDeadError):
                self._let_go()
            return Outcome(self._cut("error", error), self._trouble(error), self._model)
        response = self._cut("interrupted")
        return Outcome(response, _nothing_said(response) if response is not None else "", self._model)

    # ---- inside

    def _begin(self) -> None:
        self._find(self.asked.model)
        try:
            self._submit()
        except (EngineClosedError, EngineDeadError):
            # Somebody closed it since the last question, or it died: this one loads it again.
            self._let_go()
            wanted = self.asked.model
            self._find(wanted.name if isinstance(wanted, Model) else wanted)
            self._submit()

    def _find(self, wanted: Model | str | None) -> None:
        if isinstance(wanted, Model):
            self._model = wanted
            return
        self._model = self._models.loaded(wanted)
        if self._model is None and not self._is_stopped:
            self._say(Phase("loading", f"loading {wanted or self._models.default()} …"))
            self._model = self._models.load(wanted)
            self._say(Phase("waiting", self._model.info.summary))

    def _submit(self) -> None:
        model = self._model
        if model is None or self._is_stopped:
            return
        collector = Collector(model.name, self.asked.request.constraint)
        ticket = model.engine.submit(self.asked.request, self._inbox.put)
        self._collector = collector
        with self._lock:
            self._ticket = ticket
            is_stopped = self._is_stopped
        if is_stopped:
            ticket.cancel()

    def _follow(self) -> None:
        is_first = True
        while self._collector is not None and not self._collector.is_finished:
            chunk = self._next()
            if chunk is None:
                return
            self._collector.add(chunk)
            if chunk.error is not None:
                raise chunk.error
            if chunk.text or chunk.reasoning:
                if is_first:
                    self._say(Phase("answering"))
                is_first = False
                self._say(Came(chunk))

    def _next(self) -> Chunk | None:
        """The next chunk; None when the engine did not end what was cancelled."""
        chunk = self._inbox.get()
        deadline = time.monotonic() + _LAST_WORDS_S
        while chunk is None:
            try:
                chunk = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
        return chunk

    def _cut(self, reason: FinishReason, error: BaseException | None = None) -> Response | None:
        """What came. Without a last chunk nobody counted, except for the tokens that came."""
        if self._collector is None:
            return None
        response = self._collector.response()
        if self._collector.is_finished:
            return response
        usage = replace(response.usage, completion_tokens=len(response.tokens))
        return replace(response, finish_reason=reason, error=error, usage=usage)

    def _let_go(self) -> None:
        """Free a model that cannot answer any more, so that the next one to ask loads it."""
        if self._model is not None:
            with suppress(Exception):
                self._model.close()

    def _trouble(self, error: Exception) -> str:
        if isinstance(error, EngineClosedError):
            return "the model was closed meanwhile: ask again, and it is loaded again"
        if isinstance(error, ContextOverflowError) and self.asked.parent is not None:
            error = error.with_advice("a new conversation begins with an empty context")
        text = one_line(error)
        return f"{text}: ask again, and the model is loaded again" if isinstance(error, EngineDeadError) else text


def one_line(error: BaseException) -> str:
    """An exception for a person to read; nbllm's own say what to do, and need no name."""
    text = " ".join(str(error).split())[:_MAX_ERROR_LENGTH]
    name = type(error).__name__
    return text or name if isinstance(error, NbllmError) else f"{name}: {text}" if text else name


def _nothing_said(response: Response) -> str:
    if response.text or response.finish_reason == "interrupted":
        return ""
    reasons: dict[FinishReason, str] = {
        "length": "there was no room for an answer: allow more max_tokens, or begin a new conversation",
        "timeout": "the timeout passed before the answer began: allow more time, and ask again",
    }
    return reasons.get(response.finish_reason, "the model ended without a word: ask again, or in other words")
