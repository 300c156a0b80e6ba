"""The chat widget: traits that only Python sets, the messages of its page, and its methods for a cell."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from nbllm.config import load_config
from nbllm.errors import InvalidRequestError, NbllmError, ParameterError
from nbllm.markup.characters import normalized
from nbllm.notebook.display import updates
from nbllm.notebook.history import counted
from nbllm.notebook.widget import attachments, exits
from nbllm.notebook.widget.book import ConversationBook, TreeBook
from nbllm.notebook.widget.commands import Commands
from nbllm.notebook.widget.events import Begun
from nbllm.notebook.widget.export import exported
from nbllm.notebook.widget.here import desk_here, shows_widgets
from nbllm.notebook.widget.keeper import Keeper
from nbllm.notebook.widget.place import Place
from nbllm.notebook.widget.screen import Screen
from nbllm.notebook.widget.shelf import new_id
from nbllm.notebook.widget.talk import Talk
from nbllm.session.conversation import Conversation, as_dict
from nbllm.session.model import Model

if TYPE_CHECKING:
    from nbllm.notebook.desk import Desk
    from nbllm.notebook.widget.book import Book
    from nbllm.notebook.widget.events import Event
    from nbllm.runner.stops import StopListener
    from nbllm.session.response import Response

_STATIC = Path(__file__).parent / "static"
_VIEW = "application/vnd.jupyter.widget-view+json"
_LAST_WORDS_S = 10.0
_LIMITS = {
    "attachment_bytes": attachments.MAX_BYTES,
    "attachments": attachments.MAX_FILES,
    "images": attachments.IMAGES,
}
_logger = logging.getLogger("nbllm.widget")


class ChatWidget(anywidget.AnyWidget):
    """A chat beside the code. Show it as a cell's value; what is said in it, %%chat cells of the conversation see too.

    It says what it has to a page as it is, to one that is opened again tomorrow as text, and so where no page is, as
    under nbconvert. A model is loaded when something is first asked. Every method is safe on any thread.

    Args:
        model: a name, a path, or an nbllm.Model; None is what cells use.
        conversation: the name of one of the notebook's, which begins here if there is none, or an nbllm.Conversation;
            None goes on with the notebook's current one.
        system: the system message of conversations that begin here.
        options: of Model.chat, such as temperature=0.2; the page's settings change them.

    Attributes:
        transcript, state: what the page shows; `observe` tells of changes, on whatever thread they happen.

    Raises:
        InvalidRequestError: this process has no shell, or an argument cannot be used.
        ModelNotFoundError: there is no model of that name.
    """

    _esm = _STATIC / "chat.js"
    _css = _STATIC / "chat.css"
    transcript: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)
    header = traitlets.Dict(read_only=True).tag(sync=True)
    state = traitlets.Dict(read_only=True).tag(sync=True)
    stop_token = traitlets.Unicode(read_only=True).tag(sync=True)
    limits = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        model: Model | str | os.PathLike[str] | None = None,
        conversation: Conversation | str | None = None,
        *,
        system: str | None = None,
        **options: Any,
    ) -> None:
        self._desk = desk = desk_here()
        self._chat_id = new_id()
        self._is_open = True
        self._listening = threading.Lock()
        self._stops: StopListener | None = None
        self._has_page = shows_widgets(desk.shell)
        place = Place(desk.shell.display_pub.publish, self._chat_id, updates=updates(desk.shell))
        self._keeper = Keeper(self._chat_id, place, self._view if self._has_page else None)
        models = desk.models if self._has_page else None
        self._screen = Screen(super().send, self.set_trait, models, self._keep)
        wanted = _wanted(desk, model, conversation)
        self._talk = Talk(
            _book(desk, conversation, system),
            desk.models,
            model=wanted,
            options={**desk.settings.options, **options},
            on_event=self._on_event,
        )
        self._commands = Commands(self._talk, self)
        self._unwatch = desk.conversations.watch(self._screen.refresh)
        self.set_trait("limits", _LIMITS)
        self._screen.start(self._talk)
        super().__init__()
        self.on_msg(self._on_message)
        self._screen.list_models()
        exits.add(self._chat_id, self)

    def __repr__(self) -> str:
        return f"<nbllm.ChatWidget {self.conversation!r} of {counted(len(self._talk.book.tree.path()), 'turn')}>"

    # ---- for a cell

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What was said, as OpenAI's messages."""
        tree = self._talk.book.tree
        return [as_dict(message) for message in tree.messages(tree.head)]

    @property
    def last(self) -> Response | None:
        """The last answer that came here, also one that was stopped or failed on the way."""
        return self._talk.last

    @property
    def conversation(self) -> str:
        """The name of what is shown: `%%chat -c NAME` goes on with it."""
        return self._talk.book.name

    @property
    def model(self) -> Model | None:
        """What answers; None before it is loaded."""
        return self._talk.model

    def send(self, text: str, *, wait: bool = True) -> Response | None:
        """Ask, as the page does. The answer appears there, and is returned unless `wait` is False.

        Raises:
            InvalidRequestError: the text is empty, an answer is still coming, or the model could not answer.
            KeyboardInterrupt: the kernel was interrupted; the answer is stopped, and what came of it is kept.
        """
        self._talk.send(text)
        return self._answer() if wait else None

    def stop(self) -> None:
        """End the answer that is coming, and keep what there is of it."""
        self._talk.stop()

    def freeze(self) -> None:
        """Turn the widget's outputs into text, which stays when the kernel is gone. To show it again wakes it."""
        self._keeper.freeze(self._talk.book)
        self._screen.change(frozen=True)

    def close(self) -> None:
        """Stop, turn the outputs into text, and end. What was said stays in the conversation. Twice is harmless."""
        if getattr(self, "_chat_id", None) and exits.remove(self._chat_id):
            self._end()
        super().close()

    # ---- for IPython and ipywidgets

    def open(self) -> None:
        """Called by ipywidgets, to meet the page; without one, a notebook would save what can never be shown."""
        if self._has_page:
            super().open()

    @property
    def model_id(self) -> str:
        """What other widgets and outputs know it by; whoever asks for it shows it, page or not."""
        if self.comm is None:
            if not self._is_open:
                raise InvalidRequestError("this chat is closed; nbllm.ChatWidget() opens another")
            super().open()
        return str(self.comm.comm_id)

    def set_state(self, sync_data: Any) -> None:
        """Called by ipywidgets when a page sets traits, which none of ours does: whatever it says is not taken."""

    def _ipython_display_(self) -> None:
        """IPython's way to show it: not as the value of a cell, which could not become text later."""
        self._keeper.show(self._talk.book)
        self._screen.change(frozen=self._keeper.is_frozen)

    def _view(self) -> dict[str, Any]:
        return {_VIEW: {"version_major": 2, "version_minor": 0, "model_id": self.model_id}}

    # ---- for its page

    def hello(self) -> None:
        self._screen.hello()
        threading.Thread(target=self._listen, name="nbllm-widget-stops", daemon=True).start()

    def export(self, format_name: str) -> None:
        """Send the conversation as a file."""
        file = exported(format_name, self._talk.book.name, self._talk.book.tree.path())
        self._screen.post({"is": "export", "name": file.name, "type": file.type, "content": file.content})

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        refused = self._commands.obey(content)
        self._screen.refresh()
        self._screen.post({"is": "got", "id": _id(content), "refused": normalized(refused)})

    # ---- inside

    def _end(self) -> None:
        self._unwatch()
        self._talk.close()
        self._talk.wait(_LAST_WORDS_S)  # what is being answered is kept as far as it came
        self._keeper.close(self._talk.book)
        self._screen.keep()
        self._screen.close()
        with self._listening:
            self._is_open = False
            if self._stops is not None:
                self._stops.close()

    def _keep(self) -> str:
        return self._keeper.keep(self._talk.book)

    def _on_event(self, event: Event) -> None:
        self._screen.on_event(event)
        if isinstance(event, Begun):
            self._listen()

    def _listen(self) -> None:
        """Open the way to stop that a busy cell cannot hold up, once there is a page, or something to stop."""
        from nbllm.runner.stops import StopListener

        with self._listening:
            if self._stops is not None or not self._has_page or not self._is_open:
                return
            try:
                self._stops = StopListener(load_config().runtime_dir, self._talk.stop)
            except (NbllmError, OSError) as error:
                _logger.warning("a running cell can hold up the stopping of an answer: %s", error)
                return
        self._screen.set_trait("stop_token", self._stops.token)

    def _answer(self) -> Response | None:
        """Wait for the answer that was asked for, and return it."""
        try:
            if not self._talk.wait():
                return None  # an observer asked, on the thread that has to answer
        except KeyboardInterrupt as interrupt:
            self._talk.stop()
            self._talk.wait(_LAST_WORDS_S)
            interrupt._render_traceback_ = _one_line  # type: ignore[attr-defined]
            raise
        ended = self._screen.ended
        if ended is None:
            raise InvalidRequestError("this chat was closed before the question was answered")
        if ended.error:
            raise InvalidRequestError(ended.error) from (ended.response.error if ended.response is not None else None)
        if ended.response is not None and updates(self._desk.shell):
            self._desk.shown.note(ended.response)
        return ended.response


def _wanted(
    desk: Desk, model: Model | str | os.PathLike[str] | None, conversation: Conversation | str | None
) -> Model | str | None:
    """What answers at first. A name is looked up now, so that the cell that has it says what is wrong with it."""
    if model is None and isinstance(conversation, Conversation) and isinstance(conversation.model, Model):
        return conversation.model
    if model is None:
        return desk.settings.model
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | os.PathLike):
        raise ParameterError("model", f"must be a name, a path or an nbllm.Model, not {type(model).__name__}")
    name = os.fspath(model)
    desk.models.path(name)
    return name


def _book(desk: Desk, conversation: Conversation | str | None, system: str | None) -> Book:
    if isinstance(conversation, Conversation):
        if system is not None:
            raise ParameterError("system", "the conversation has its own beginning; leave it out")
        return ConversationBook(conversation)
    if conversation is not None and not isinstance(conversation, str):
        what = type(conversation).__name__
        raise ParameterError("conversation", f"must be a name or an nbllm.Conversation, not {what}")
    default = desk.settings.system
    tree, _ = desk.conversations.choose(name=conversation, system=system, default_system=default)
    return TreeBook(desk.conversations, tree, default_system=default if system is None else system)


def _id(content: Any) -> int | str | None:
    """What the page's message is answered under."""
    found = content.get("id") if isinstance(content, dict) else None
    return (
        found if isinstance(found, int) or (isinstance(found, str) and found.isascii() and len(found) < 100) else None
    )


def _one_line() -> list[str]:
    return ["KeyboardInterrupt: the answer was stopped; what came of it is kept"]
