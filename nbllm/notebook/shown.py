"""A cell's value that the cell has shown already, while it was written, is not shown a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbllm.session.response import Response

RESPONSE = "nbllm.session.response.Response"


class Shown:
    """Remembers the answer that was just streamed, and silences its display in that same cell, once."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._response: Response | None = None
        self._count = 0

    def note(self, response: Response) -> None:
        self._response, self._count = response, self._shell.execution_count

    def display(self, response: Response) -> None:
        """A formatter for IPython: to return says that it was displayed, NotImplementedError that it was not."""
        expected, self._response = self._response, None
        if response is not expected or self._count != self._shell.execution_count:
            raise NotImplementedError
