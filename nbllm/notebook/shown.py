"""A cell's value that the cell has shown already, while it was written, is not shown a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from nbllm.session.response import Response

KINDS = ("nbllm.session.response.Response", "pandas.DataFrame")
"""What a magic's value may be, by the names that IPython's formatters know the types by."""


class Shown:
    """Remembers the value that the cell has just shown in its own way, and silences its display there, once."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._value: Response | pd.DataFrame | None = None
        self._count = 0

    def note(self, value: Response | pd.DataFrame) -> None:
        self._value, self._count = value, self._shell.execution_count

    def display(self, value: Response | pd.DataFrame) -> None:
        """A formatter for IPython: to return says that it was displayed, NotImplementedError that it was not."""
        expected, self._value = self._value, None
        if value is not expected or self._count != self._shell.execution_count:
            raise NotImplementedError
