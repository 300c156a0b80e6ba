"""Keeps a chat: on disk, and in the notebook as text wherever its widget cannot be seen."""

from __future__ import annotations

from collections.abc import Callable
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
        self.is_frozen = view is None

    def show(self, book: Book) -> None:
        """Give the running cell an output: the widget, which is awake from now on, or its text."""
        self.is_frozen = self._view is None
        view = self._view() if self._view is not None else {}
        self._place.show({**self._bundle(book), **view})
        with suppress(NbllmError):  # told with the first answer
            self._write(book, self._bundle(book))

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
        return self._id(path[0]) if path else ""

    def _write(self, book: Book, bundle: dict[str, str]) -> None:
        if self._shelf is None:
            self._shelf = Shelf()
        path = book.tree.path()
        if path:
            self._shelf.save(self._id(path[0]), book.tree.messages(path[-1]), bundle)
        self._shelf.save_bundle(self._chat_id, bundle)

    def _bundle(self, book: Book) -> dict[str, str]:
        path = book.tree.path()
        return frozen.bundle(book.name, path, self._id(path[0]) if path else self._chat_id)

    def _id(self, root: Turn) -> str:
        return self._ids.setdefault(root, new_id() if self._ids else self._chat_id)
