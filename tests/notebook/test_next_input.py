from __future__ import annotations

from typing import Any

import pytest

from nbllm.notebook.next_input import NextInput
from nbllm.notebook.seen import Seen


class Cells:
    """A shell whose replies are looked at as JupyterLab does: the last one of a run that went well counts."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.replies: list[tuple[str, bool]] = []
        self.results: list[str] = []
        shell.set_next_input = self._note
        self.seen = Seen(shell)
        self.seen.register()
        self.next_input = NextInput(shell, self.seen.is_gone)
        shell.push({"insert": self._insert, "replace": self.next_input.replace})

    def _note(self, text: str, replace: bool = False) -> None:
        self.replies.append((text, replace))

    def _insert(self, code: str) -> None:
        self.results.append(self.next_input.insert(code, self.seen.cell_id))

    def run(self, code: str, cell_id: str | None = "asking", **options: Any) -> tuple[str, bool] | None:
        """The reply's payload."""
        self.replies.clear()
        self.shell.run_cell(code, store_history=True, cell_id=cell_id, **options)
        return self.replies[-1] if self.replies else None


@pytest.fixture
def cells(shell: Any) -> Cells:
    return Cells(shell)


def test_code_goes_into_a_new_cell_once(cells: Cells) -> None:
    assert cells.run("insert('x = 1')") == ("x = 1", False)
    assert cells.run("insert('x = 1')") is None
    assert cells.run("insert('x = 1')") is None
    assert cells.results == ["inserted", "unchanged", "unchanged"]


def test_other_code_says_what_it_replaces(cells: Cells) -> None:
    cells.run("1")
    cells.run("insert('x = 1')")
    cells.run("insert('x = 1')")
    assert cells.run("insert('x = 2')") == ("# Replaces the code that In [2] put below\nx = 2", False)
    assert cells.run("insert('x = 3')") == ("# Replaces the code that In [4] put below\nx = 3", False)
    assert cells.results[-1] == "superseding"


def test_cell_magic_stays_the_first_line(cells: Cells) -> None:
    cells.run("insert('x = 1')")
    assert cells.run("insert('%%bash\\nls')") == ("%%bash\nls", False)


def test_cells_do_not_mix(cells: Cells) -> None:
    cells.run("insert('x = 1')", "one")
    assert cells.run("insert('x = 1')", "two") == ("x = 1", False)


def test_without_an_id_every_run_inserts(cells: Cells) -> None:
    assert cells.run("insert('x = 1')", None) == ("x = 1", False)
    assert cells.run("insert('x = 1')", None) == ("x = 1", False)


def test_two_answers_of_one_run_share_the_cell(cells: Cells) -> None:
    assert cells.run("insert('x = 1'); insert('y = 1')") == ("x = 1\n\ny = 1", False)
    assert cells.run("insert('x = 1'); insert('y = 1')") is None
    assert cells.run("insert('x = 1'); insert('y = 2')") == (
        "# Replaces the code that In [1] put below\nx = 1\n\ny = 2",
        False,
    )


def test_deleted_cell_is_inserted_again(cells: Cells) -> None:
    cells.run("insert('x = 1')")
    meta = {"deletedCells": ["unknown"]}
    assert cells.run("insert('x = 1')", cell_meta=meta) == ("x = 1", False)
    assert cells.run("insert('x = 1')") is None
    assert cells.run("insert('x = 2')", cell_meta=meta) == ("x = 2", False)


def test_failed_run_inserted_nothing(cells: Cells) -> None:
    cells.run("insert('x = 1')\nraise KeyboardInterrupt")
    assert cells.run("insert('x = 1')") == ("x = 1", False)


def test_replace_takes_the_running_cell(cells: Cells) -> None:
    assert cells.run("replace('x = 1')") == ("x = 1", True)


def test_terminal_offers_the_code_at_the_next_prompt(shell: Any) -> None:
    assert NextInput(shell).insert("x = 1", None) == "inserted"
    assert shell.rl_next_input == "x = 1"
