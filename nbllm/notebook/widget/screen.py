"""What the page of a chat shows: the Talk's events come in, the widget's traits and messages go out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nbllm.errors import NbllmError
from nbllm.markup.characters import normalized
from nbllm.notebook.widget.events import Begun, Came, Ended, Phase
from nbllm.notebook.widget.header import Listed, header, listed_models
from nbllm.notebook.widget.live import Live
from nbllm.notebook.widget.outbox import Outbox
from nbllm.notebook.widget.transcript import Transcript, live_question

if TYPE_CHECKING:
    from nbllm.notebook.models import Models
    from nbllm.notebook.tree import Turn
    from nbllm.notebook.widget.events import Event
    from nbllm.notebook.widget.talk import Talk

Send = Callable[[dict[str, Any]], None]
SetTrait = Callable[[str, Any], object]
_AWAKE = {"phase": "idle", "frozen": False}
_logger = logging.getLogger("nbllm.widget")


class Screen:
    """Any thread may call any method. Nothing is sent or set but through one outbox, so nothing overtakes another.

    Args:
        send: a message to every view.
        set_trait: the name of a trait and its new value.
        models: that a person could choose; None where there is no page to do so.
        keep: called when something was said, on the thread that said it; returns the id under which another kernel
            can go on, and raises NbllmError if it cannot be kept.

    Attributes:
        ended: how the last answer ended; None while one is on its way, and before the first.
    """

    def __init__(self, send: Send, set_trait: SetTrait, models: Models | None, keep: Callable[[], str]) -> None:
        self._send, self._set_trait, self._models, self._keep = send, set_trait, models, keep
        self._outbox = Outbox()
        self._live = Live(send, outbox=self._outbox)
        self._transcript = Transcript()
        self._state: dict[str, Any] = {**dict.fromkeys(("detail", "error", "draft", "chat"), ""), **_AWAKE}
        self._listed: list[Listed] = []
        self._listing = threading.Lock()
        self._keeping = threading.Lock()
        self._num_said = self._num_kept = 0
        self._parent: Turn | None = None  # what the answer on its way follows
        self._is_unkept = False
        self._talk: Talk | None = None
        self.ended: Ended | None = None

    def start(self, talk: Talk) -> None:
        """Show the talk, whose events come to `on_event`."""
        self._talk = talk
        self._put(self._set_transcript, self._set_header)
        self.change()

    def close(self) -> None:
        self._live.close()

    # ---- what the widget asks for

    def post(self, message: dict[str, Any]) -> None:
        """Send a message after all that was said before it."""
        self._put(partial(self._send, message))

    def change(self, **values: Any) -> None:
        """Change entries of the state."""
        self._put(partial(self._change, values))

    def set_trait(self, name: str, value: Any) -> None:
        self._put(partial(self._set_trait, name, value))

    def refresh(self) -> None:
        """The model, a setting or the name of a conversation is another."""
        self._put(self._set_header)

    def hello(self) -> None:
        """A view is there that has seen nothing yet, or has missed something."""
        self._live.resend()
        self.list_models()

    def keep(self) -> None:
        """Keep what was said, if that is not done. That it cannot be is told once, and harms nothing else."""
        with self._keeping:
            said = self._num_said
            if said == self._num_kept:
                return
            try:
                chat = self._keep()
                self._num_kept = said
                self.change(chat=chat)
            except NbllmError as error:
                _logger.warning("a chat is not kept: %s", error)
                if not self._is_unkept:
                    self._is_unkept = True
                    self.change(error=normalized(str(error)))

    def list_models(self) -> None:
        """Look for models, on a thread: a folder may be slow, and a model that is being loaded holds the list."""
        if self._models is not None:
            work = (self._models,)
            threading.Thread(target=self._list_models, args=work, name="nbllm-widget-models", daemon=True).start()

    # ---- events

    def on_event(self, event: Event) -> None:
        """What happened in the Talk, on whatever thread."""
        try:
            self._take(event)
        except Exception:  # a Talk must not end because its page cannot follow
            _logger.exception("the chat widget could not show what happened")

    def _take(self, event: Event) -> None:
        if isinstance(event, Came):
            self._live.add(event.chunk)
        elif isinstance(event, Begun):
            self._begin(event)
        elif isinstance(event, Ended):
            self._end(event)
        elif isinstance(event, Phase):
            self.change(phase=event.phase, detail=normalized(event.detail))
        else:
            self._put(self._set_transcript, self._set_header)
            self._keep_soon()

    def _begin(self, event: Begun) -> None:
        self.ended = None
        self.change(error="", draft="")
        self._parent = event.parent
        if self._talk is not None and event.parent is not None and self._talk.book.tree.is_stale(event.parent):
            self._put(self._set_transcript)
        after = event.parent.number if event.parent is not None else 0
        self._live.begin(event.live, live_question(event.live, event.question.content), after)

    def _end(self, event: Ended) -> None:
        blocks = self._live.finish()
        talk = self._talk
        if event.turn is not None and event.response is not None and talk is not None:
            self._transcript.note(
                event.turn, event.response, live=event.live, context_length=talk.context[1], blocks=blocks
            )
            self._parent = None
        self._put(self._set_transcript, self._set_header)
        # The next question need not wait until this one is on disk, after which the Talk says that it is idle.
        phase = talk.phase if talk is not None else "idle"
        self.change(phase=phase, detail="", error=normalized(event.error), draft=normalized(event.draft))
        self._live.end()
        self._follow_head()
        if event.turn is not None:
            self._num_said += 1
            self.keep()
        self.ended = event
        self.list_models()

    def _follow_head(self) -> None:
        """Nothing comes any more that would stand under another branch."""
        if self._parent is not None:
            self._parent = None
            self._put(self._set_transcript)

    def _keep_soon(self) -> None:
        """A cell said something, and need not wait for the disk; without a page its output has to be done with it."""
        self._num_said += 1
        if self._models is None:
            self.keep()
        else:
            threading.Thread(target=self.keep, name="nbllm-widget-keep", daemon=True).start()

    # ---- in the outbox

    def _put(self, *actions: Callable[[], object]) -> None:
        for action in actions:
            self._outbox.put(action)
        self._outbox.deliver()

    def _set_transcript(self) -> None:
        if self._talk is not None:
            self._set_trait("transcript", self._transcript.of(self._talk.book.tree, self._parent))

    def _set_header(self) -> None:
        if self._talk is not None:
            self._set_trait("header", header(self._talk, self._listed))

    def _change(self, values: dict[str, Any]) -> None:
        self._state = {**self._state, **values}
        self._set_trait("state", self._state)

    def _list_models(self, models: Models) -> None:
        with self._listing:
            try:
                self._listed = listed_models(models)
            except Exception:  # a folder that cannot be read, settings that are wrong: the chat itself goes on
                _logger.exception("the chat widget could not list the models")
        self._put(self._set_header)
