"""A chat without a page: questions are asked on a thread of their own, and what happens is told as events."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nbllm.errors import InvalidRequestError, NbllmError
from nbllm.notebook.widget.answering import Answering, one_line
from nbllm.notebook.widget.asked import Asked, edited_question, typed_question
from nbllm.notebook.widget.events import Changed, Ended
from nbllm.notebook.widget.options import ChatOptions
from nbllm.notebook.widget.worker import Worker
from nbllm.session.model import Model

if TYPE_CHECKING:
    from nbllm.core import EngineInfo, Message
    from nbllm.core.presets import Preset
    from nbllm.notebook.models import Models
    from nbllm.notebook.tree import Turn
    from nbllm.notebook.widget.answering import Outcome
    from nbllm.notebook.widget.attachments import Attachment
    from nbllm.notebook.widget.book import Book
    from nbllm.notebook.widget.events import Event, PhaseName
    from nbllm.session.response import Response

_logger = logging.getLogger("nbllm")


class Talk:
    """Asks in a book's conversation, one question at a time. Every method is safe on any thread, and returns at once.

    Each answer has a daemon thread, which an interrupt of the kernel does not touch; its events come in order and from
    there, `Changed` from whatever thread changed the conversation. No lock is held while `on_event` runs. It may call
    any method, and what it raises is logged.

    Args:
        book: owned from here on.
        model: a model, or the name of one; None is the default one.
        options: as of `set_options`.

    Attributes:
        book: what is talked in.
        error: why the last question was not answered, "" if it was.
        last: the last response, also one that was stopped or failed on the way.
    """

    def __init__(
        self,
        book: Book,
        models: Models,
        *,
        model: Model | str | None = None,
        options: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None],
    ) -> None:
        self.book, self._models = book, models
        self.error = ""
        self.last: Response | None = None
        self._options = ChatOptions.of(options or {})
        self._wanted = model
        self._model = model if isinstance(model, Model) else None
        self._preset = self._preset_of(model)
        self._used: dict[Turn, tuple[int, int]] = {}
        self._worker = Worker(on_event, self._record, book.close)
        self._unwatch = book.tree.watch(self._worker.changed)

    # ---- what is so

    @property
    def phase(self) -> PhaseName:
        return self._worker.phase

    @property
    def model(self) -> Model | None:
        """What answered last, or was given; None before a model is loaded."""
        return self._model

    @property
    def preset(self) -> Preset | None:
        """What the model adds to the questions, None if nothing is known of it."""
        return self._model.preset if self._model is not None else self._preset

    @property
    def info(self) -> EngineInfo | None:
        return self._model.info if self._model is not None else None

    @property
    def model_name(self) -> str:
        """What answers the next question."""
        wanted = self._wanted
        if wanted is None:
            return self._model.name if self._model is not None else self._models.default()
        return wanted if isinstance(wanted, str) else wanted.name

    @property
    def context(self) -> tuple[int, int]:
        """Tokens that the last turn left in the context, and how many fit; (0, 0) is not known."""
        head, info = self.book.tree.head, self.info
        if head is None:
            return 0, info.context_length if info is not None else 0
        return self._used.get(head, (0, 0))

    @property
    def options(self) -> dict[str, Any]:
        """What was set and is not the default."""
        return dict(self._options.values)

    @property
    def system(self) -> str:
        """The system message of the next question, "" without one."""
        beginning = self._beginning(self.book.tree.head)
        return beginning[0].content if beginning and beginning[0].role == "system" else ""

    # ---- what can be done

    def send(self, text: str, attachments: Iterable[Attachment] = ()) -> None:
        """Ask at the end of the active path.

        Raises:
            InvalidRequestError: there is nothing to ask, or the last question is not answered yet.
        """
        files = tuple(attachments)
        question = typed_question(text, files)
        with self._worker.lock:
            self._worker.check_free()
            head = self.book.tree.head
            self._ask(head, self._beginning(head), question, text, files)

    def regenerate(self, turn: int | None = None) -> None:
        """Ask the question of a turn again, of the last one by default: both answers are kept, as branches.

        Raises:
            InvalidRequestError: there is no such turn, or the last question is not answered yet.
        """
        with self._worker.lock:
            self._worker.check_free()
            old = self._turn(turn) if turn is not None else self.book.tree.head
            if old is None:
                raise InvalidRequestError("there is no answer yet to ask for again: ask something first")
            self._ask(old.parent, self._beginning(old), old.question)

    def edit(self, turn: int, text: str) -> None:
        """Ask something else in the place of a turn's question, with the same files; both are kept, as branches.

        Raises:
            InvalidRequestError: as of `send`, or there is no such turn.
        """
        with self._worker.lock:
            self._worker.check_free()
            old = self._turn(turn)
            self._ask(old.parent, self._beginning(old), edited_question(old.question, text), text)

    def branch(self, turn: int) -> None:
        """Go on from the newest turn below this one. Raises InvalidRequestError when there is no such turn."""
        self._worker.check_open()
        self.book.tree.goto(self._turn(turn))

    def stop(self) -> None:
        """End the answer within a step and keep its text; a model that is being loaded stays loaded."""
        self._worker.stop()

    def close(self) -> None:
        """Stop, and ask no more. What came is kept, and its `Ended` is told. Twice is harmless."""
        self._worker.close()
        self._unwatch()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether all is answered and told, within the time; called by `on_event` it does not wait."""
        return self._worker.wait(timeout_s)

    def choose_model(self, model: Model | str | None) -> None:
        """Let another model answer from the next question on.

        Raises:
            ModelNotFoundError: there is none of that name; the message has the closest.
        """
        if not isinstance(model, Model):
            self._models.path(model)
        preset = self._preset_of(model)
        with self._worker.lock:
            self._wanted, self._model = model, model if isinstance(model, Model) else None
            self._preset = preset

    def set_options(self, values: Mapping[str, Any]) -> None:
        """Change some of `Model.chat`'s options; None is the default, of "system" what the conversation began with.

        Raises:
            ParameterError: one is unknown or out of range; none is changed.
        """
        with self._worker.lock:
            self._options = self._options.changed(values, self.book.tree.system)

    def new(self) -> None:
        """Begin a conversation. A system message that is set holds there too.

        Raises:
            InvalidRequestError: the last question is not answered yet.
        """
        self._switch(lambda: self.book.new(None))

    def open(self, name: str) -> None:
        """Go on with another conversation.

        Raises:
            InvalidRequestError: there is none of that name, or the last question is not answered yet.
        """
        self._switch(lambda: self.book.open(name), is_other=True)

    def rename(self, name: str) -> None:
        """Raises InvalidRequestError when the name is taken or not fit for one."""
        self._worker.check_open()
        self.book.rename(name)

    # ---- asking, under the lock

    def _ask(
        self,
        parent: Turn | None,
        beginning: tuple[Message, ...],
        question: Message,
        draft: str = "",
        files: tuple[Attachment, ...] = (),
    ) -> None:
        asked = Asked(
            live=uuid.uuid4().hex,
            question=question,
            parent=parent,
            beginning=beginning,
            request=self._options.request([*self.book.tree.messages(parent, beginning), question]),
            model=self._wanted,
            draft=draft,
            attachments=files,
        )
        self.error = ""
        self._worker.start(Answering(asked, self._models, self._worker.say))

    # ---- answered, on the answer's thread

    def _record(self, asked: Asked, outcome: Outcome) -> Ended:
        """Keep what came, unless nothing was answered."""
        response, error, turn = outcome.response, outcome.error, None
        if response is not None and response.text:
            try:
                turn = self._recorded(asked, response)
            except Exception as problem:  # the thread has to say what became of the question
                _logger.exception("an answer could not be kept")
                error = f"the answer was not kept: {one_line(problem)}"
        with self._worker.lock:
            self.error, self.last = error, response or self.last
            self._learn(asked, outcome, turn)
        draft, files = (asked.draft, asked.attachments) if turn is None else ("", ())
        return Ended(asked.live, turn, response, error, draft, files)

    def _recorded(self, asked: Asked, response: Response) -> Turn:
        return self.book.record(
            asked.parent,
            asked.question,
            response.message,
            finish_reason=response.finish_reason,
            model=response.model,
            beginning=asked.beginning,
        )

    def _learn(self, asked: Asked, outcome: Outcome, turn: Turn | None) -> None:
        response, model = outcome.response, outcome.model
        if model is not None and self._wanted is asked.model:
            self._model = model
            if isinstance(self._wanted, Model):
                self._wanted = model  # it was loaded again
        if turn is not None and response is not None and model is not None and response.usage.prompt_tokens:
            self._used[turn] = response.usage.total_tokens, model.info.context_length

    # ---- inside

    def _switch(self, action: Callable[[], None], *, is_other: bool = False) -> None:
        """Make the book show another conversation, while no question is on its way into this one.

        Args:
            is_other: it was there before.
        """
        with self._worker.switching():
            try:
                action()
                with self._worker.lock:
                    self.error = ""
                    self._options = self._options.for_another() if is_other else self._options
            finally:
                self._watch()
        self._worker.tell(Changed())

    def _watch(self) -> None:
        """Watch the tree that the book shows now, instead of the one before."""
        unwatch, self._unwatch = self._unwatch, self.book.tree.watch(self._worker.changed)
        unwatch()
        if self.phase == "closed":
            self._unwatch()

    def _preset_of(self, model: Model | str | None) -> Preset | None:
        """What is known of it before it is loaded; what is wrong with its name is told when it is asked."""
        try:
            return model.preset if isinstance(model, Model) else self._models.preset(model)
        except (NbllmError, OSError):
            return None

    def _beginning(self, turn: Turn | None) -> tuple[Message, ...]:
        """What is sent first in the place of `turn` or after it."""
        return self._options.beginning(self.book.tree.beginning if turn is None else turn.beginning)

    def _turn(self, number: int) -> Turn:
        turns = self.book.tree.turns
        if not isinstance(number, int) or not 1 <= number <= len(turns):
            raise InvalidRequestError(f"there is no turn {number!r:.20} in {self.book.name}; it has {len(turns):,}")
        return turns[number - 1]
