"""What the page may ask for. Whatever it sends is checked field by field, and refused in one line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from nbllm.errors import InvalidRequestError, NbllmError
from nbllm.markup.characters import encodable
from nbllm.notebook.widget import attachments, export

if TYPE_CHECKING:
    from nbllm.notebook.widget.talk import Talk

FORMATS = tuple(export.FORMATS)
"""Of `export`."""
MAX_TEXT_LENGTH = 1_000_000
"""Characters of a message: a page that sends more is broken, and every view would get them back."""
_MAX_NAME_LENGTH = 4096
_MAX_VALUES = 100
_logger = logging.getLogger("nbllm.widget")


class Page(Protocol):
    """What the widget itself does for its page."""

    def hello(self) -> None:
        """A view is there, or has missed something."""

    def export(self, format_name: str) -> None: ...
    def freeze(self) -> None: ...


class Commands:
    """Does what the messages of a page say, on whatever thread they come."""

    def __init__(self, talk: Talk, page: Page) -> None:
        self._talk = talk
        self._commands: dict[str, Callable[[_Fields], None]] = {
            "hello": lambda _: page.hello(),
            "send": self._send,
            "stop": lambda _: talk.stop(),
            "regenerate": lambda fields: talk.regenerate(fields.turn_if_any("turn")),
            "edit": lambda fields: talk.edit(fields.turn("turn"), fields.text("text")),
            "branch": lambda fields: talk.branch(fields.turn("turn")),
            "new": lambda _: talk.new(),
            "open": lambda fields: talk.open(fields.text("name", _MAX_NAME_LENGTH)),
            "rename": lambda fields: talk.rename(fields.text("name", _MAX_NAME_LENGTH)),
            "model": lambda fields: talk.choose_model(fields.text("name", _MAX_NAME_LENGTH)),
            "settings": lambda fields: talk.set_options(fields.values("values")),
            "export": lambda fields: page.export(fields.one_of("format", FORMATS)),
            "freeze": lambda _: page.freeze(),
        }

    def obey(self, message: object) -> str:
        """Do it. Returns why not, in one line, or "" when it is done."""
        try:
            fields = _Fields(message)
            self._commands[fields.one_of("do", tuple(self._commands))](fields)
        except (NbllmError, OSError) as error:
            return " ".join(str(error).split()) or type(error).__name__
        except Exception as error:  # a page waits for its answer whatever is wrong here
            _logger.exception("the chat widget could not do what its page asked for")
            return f"this went wrong inside nbllm ({type(error).__name__}); the kernel's log has more"
        return ""

    def _send(self, fields: _Fields) -> None:
        text = fields.text("text")
        self._talk.send(text, attachments.checked(fields.value("attachments")))


class _Fields:
    """One message of a page. Each method raises InvalidRequestError for what is not as it should be."""

    def __init__(self, message: object) -> None:
        if not isinstance(message, Mapping):
            raise InvalidRequestError(f"a message must be an object, not {type(message).__name__}")
        self._message: Mapping[str, Any] = message

    def value(self, name: str) -> Any:
        return self._message.get(name)

    def text(self, name: str, most: int = MAX_TEXT_LENGTH) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise InvalidRequestError(f"{name}: must be a text, not {type(value).__name__}")
        if len(value) > most:
            raise InvalidRequestError(f"{name}: has {len(value):,} characters; at most {most:,} are taken")
        return encodable(value)

    def turn(self, name: str) -> int:
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidRequestError(f"{name}: must be the number of a turn, not {value!r:.100}")
        return value

    def turn_if_any(self, name: str) -> int | None:
        return None if self.value(name) is None else self.turn(name)

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        value = self.value(name)
        if not isinstance(value, str) or value not in allowed:
            raise InvalidRequestError(f"{name}: must be one of {', '.join(allowed)}, not {value!r:.100}")
        return value

    def values(self, name: str) -> dict[str, Any]:
        """Options by name. What their values may be is for the one who takes them to say."""
        value = self.value(name)
        if not isinstance(value, Mapping) or len(value) > _MAX_VALUES:
            raise InvalidRequestError(f"{name}: must be an object of settings, not {type(value).__name__}")
        return {_sendable(str(key)): _sendable(one) for key, one in value.items()}


def _sendable(value: Any) -> Any:
    """A setting's value, in whose texts nothing is left that UTF-8 cannot carry: a page may send half a character."""
    if isinstance(value, list):
        return [_sendable(one) if isinstance(one, str) else one for one in value]
    return encodable(value) if isinstance(value, str) else value
