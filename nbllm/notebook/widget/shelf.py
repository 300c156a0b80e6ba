"""Where widgets put what is said in them, so that it is there when their kernel is gone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.notebook.widget.lines import of_lines
from nbllm.session.conversation import as_lines
from nbllm.store import chats
from nbllm.store.chats import new_id
from nbllm.store.header import shown

if TYPE_CHECKING:
    from nbllm.core import Message

__all__ = ["KeptChat", "Shelf", "new_id"]

_SUFFIX = ".jsonl"
_NUM_NAMED = 3


class KeptChat(NamedTuple):
    """One chat of the shelf. `changed_at` is in seconds since 1970."""

    chat_id: str
    changed_at: float
    size_bytes: int


class Shelf:
    """The chats of one folder; any thread may use it.

    Args:
        folder: where they are; by default the setting `chats_dir`.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder).expanduser() if folder is not None else _configured_folder()
        self._lock = threading.Lock()

    def save(self, chat_id: str, messages: Iterable[Message], bundle: Mapping[str, str]) -> None:
        """Replace what was kept of the chat. Each file is the old one or the new one, whatever happens meanwhile.

        Args:
            bundle: what stands for the widget in a notebook, `text/markdown` and `text/plain`.

        Raises:
            NbllmError: the folder cannot be written to, and why; nothing that was kept is lost.
        """
        lines = as_lines(messages)
        with self._lock, self._one_line():
            chats.write_messages(chat_id, lines, self.folder)
            chats.write_bundle(chat_id, bundle, self.folder)

    def save_bundle(self, chat_id: str, bundle: Mapping[str, str]) -> None:
        """Replace only what stands for the widget. Raises as `save` does."""
        with self._lock, self._one_line():
            chats.write_bundle(chat_id, bundle, self.folder)

    def messages(self, chat_id: str) -> tuple[Message, ...]:
        """All that was said in the chat, in order.

        Raises:
            InvalidRequestError: there is no such chat, or its file is damaged.
        """
        lines = chats.read_messages(chat_id, self.folder)
        if lines is None or not lines.strip():
            raise InvalidRequestError(self._not_found(chat_id))
        try:
            return of_lines(lines)
        except InvalidRequestError as error:
            place = shown(self.folder / f"{chat_id}{_SUFFIX}")
            raise InvalidRequestError(f"{place}: {error}; correct the line, or take it out") from error

    def bundle(self, chat_id: str) -> dict[str, str] | None:
        """What stands for the chat in a notebook; None when there is none that can be used."""
        return chats.read_bundle(chat_id, self.folder)

    def list(self) -> list[KeptChat]:
        """All chats in which something was said, the one that was changed last first."""
        found = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                chat_id = entry.name.removesuffix(_SUFFIX)
                if entry.name.endswith(_SUFFIX) and _is_id(chat_id):
                    with suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        found += [KeptChat(chat_id, status.st_mtime, status.st_size)] if status.st_size else []
        return sorted(found, key=lambda chat: (chat.changed_at, chat.chat_id), reverse=True)

    def _not_found(self, chat_id: str) -> str:
        newest = [chat.chat_id for chat in self.list()[:_NUM_NAMED]]
        known = f"the newest are {', '.join(newest)}" if newest else "there is none yet"
        return f"no chat {chat_id} is kept in {shown(self.folder)}; {known}"

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidRequestError(
                f"the chat cannot be kept in {shown(self.folder)}: {error.strerror or error}; "
                "make room there, or name another folder as chats_dir (NBLLM_CHATS_DIR)"
            ) from error


def _configured_folder() -> Path:
    from nbllm.config import load_config

    return chats.folder(load_config())


def _is_id(text: str) -> bool:
    with suppress(ParameterError):
        chats.checked_id(text)
        return True
    return False
