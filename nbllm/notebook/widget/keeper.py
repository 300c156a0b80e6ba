"""Keeps a chat: on disk, and in the notebook as text wherever its widget cannot be seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from nbllm.errors import NbllmError
from nbllm.notebook.widget import frozen
from nbllm.notebook.widget.shelf import Shelf, new_id

if TYPE_CHECKING:
    from nbllm.notebook.tree import Turn
    from nbllm.notebook.widget.book import Book
    from nbllm.notebook.widget.place import Place


class Keeper:
    """One widget's, for any thread but `keep`, which one thread calls at a time.

    Its outputs are known by one id, under which the shelf has the text that stands for what they show. What was said
    is kept by its beginning, so that a new or another conversation in the same widget takes nobody's place on disk: the
    first has the widget's own id.

    Args:
        view: what a front end shows as the widget; None where nobody could use it.

    Attributes:
        is_frozen: the outputs are text, and follow what is said from turn to turn.
    """

    def __init__(self, chat_id: str, place: Place, view: Callable[[], dict[str, object]] | None) -> None:
        self._chat_id, self._place, self._view = chat_id, place, view
        self._shelf: Shelf | None = None
        self._ids: dict[Turn, str] = {}
        self._bundles, self._making = frozen.Bundles(), threading.Lock()
        self.is_frozen = view is None

    def show(self, book: Book) -> None:
        """Give the running cell an output: the widget, which is awake from now on, or its text."""
        self.is_frozen = self._view is None
        bundle = self._bundle(book)
        view = self._view() if self._view is not None else {}
        self._place.show({**bundle, **view})
        with suppress(NbllmError):  # told with the first answer
            self._write(book, bundle)

    def freeze(self, book: Book) -> None:
        """Turn the outputs into text."""
        self.is_frozen = True
        self._place.update(self._bundle(book))

    def close(self, book: Book) -> None:
        """Turn the outputs into text for good."""
        self._view = None
        self.freeze(book)

    def keep(self, book: Book) -> str:
        """Write down what was said so far, and return the id to go on with in another kernel, "" without any.

        Raises:
            NbllmError: it cannot be written.
        """
        bundle = self._bundle(book)
        if self.is_frozen:
            self._place.update(bundle)
        self._write(book, bundle)
        path = book.tree.path()
        return self._id(path) if path else ""

    def _write(self, book: Book, bundle: dict[str, str]) -> None:
        if self._shelf is None:
            self._shelf = Shelf()
        path = book.tree.path()
        chat_id = self._id(path)
        if path:
            self._shelf.save(chat_id, book.tree.messages(path[-1]), bundle)
        if not path or chat_id != self._chat_id:
            self._shelf.save_bundle(self._chat_id, bundle)

    def _bundle(self, book: Book) -> dict[str, str]:
        path = book.tree.path()
        with self._making:
            return self._bundles.bundle(book.name, path, self._id(path))

    def _id(self, path: Sequence[Turn]) -> str:
        if not path:
            return self._chat_id
        return self._ids.setdefault(path[0], new_id() if self._ids else self._chat_id)
