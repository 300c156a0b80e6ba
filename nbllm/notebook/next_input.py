"""Code that goes from an answer into a cell: a new one below the question, or the question's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

Inserted = Literal["inserted", "unchanged", "superseding"]


def _never(source: str, run: int) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Insertion:
    """What one run of a cell inserted, or would have if it had not been there.

    Attributes:
        run: the execution count of that run.
        made_by: that of the run that really inserted it.
        text: the cell as it was inserted.
        earlier: what stood there before that run.
    """

    code: str
    run: int
    made_by: int
    text: str
    earlier: _Insertion | None = None


class NextInput:
    """Puts code into cells by what the kernel replies to the front end. Where none listens, nothing happens.

    A reply can add a cell below the one that ran, or replace that one: it cannot reach any other. So a cell that runs
    again and has the same code adds nothing, and with other code a cell that says which one it replaces.

    Args:
        is_gone: whether a cell that the run of this count inserted with this source is not there any more.
    """

    def __init__(self, shell: Any, is_gone: Callable[[str, int], bool] = _never) -> None:
        self._shell, self._is_gone = shell, is_gone
        self._by_cell: dict[str, _Insertion] = {}

    def insert(self, code: str, cell_id: str | None) -> Inserted:
        """Put `code` into a new cell below the running one, unless an earlier run of `cell_id` did so already.

        A reply has room for one cell: what a run inserts after the first time goes into the same one.
        """
        run: int = self._shell.displayhook.prompt_count
        if cell_id is None:
            self._shell.set_next_input(code, replace=False)
            return "inserted"
        known = self._by_cell.get(cell_id)
        if known is not None and known.run == run:
            code, known = f"{known.code}\n\n{code}", known.earlier
        if known is not None and self._is_gone(known.text, known.made_by):
            known = None
        if known is not None and (known.code == code or known.code.startswith(f"{code}\n\n")):
            self._by_cell[cell_id] = replace(known, code=code, run=run, earlier=replace(known, earlier=None))
            return "unchanged"
        text = code if known is None else _in_place_of(known, code)
        self._shell.set_next_input(text, replace=False)
        self._by_cell[cell_id] = _Insertion(code, run, run, text, known and replace(known, earlier=None))
        return "inserted" if known is None else "superseding"

    def replace(self, code: str) -> None:
        """Put `code` into the running cell, in place of what it says now."""
        self._shell.set_next_input(code, replace=True)


def _in_place_of(known: _Insertion, code: str) -> str:
    if code.lstrip().startswith("%%"):
        return code  # a cell magic has to be the first line
    return f"# Replaces the code that In [{known.made_by}] put below\n{code}"
