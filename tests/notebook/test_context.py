from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.history import HistoryManager
from IPython.core.magic import no_var_expand

from nbllm.notebook.context import recent_cells
from nbllm.notebook.seen import Seen

EXPECTED = """\
The last 2 cells of the notebook, oldest first:

In [2]:
```python
import sys
print('hello')
print('warned', file=sys.stderr)
x = 2
x * 21
```
Its output:
```
hello
42
```

In [3]:
```python
def f():
    1/0
f()
```
Its output:
```
  File "In[3]", line 3, in <module>
    f()
  File "In[3]", line 2, in f
    1/0
ZeroDivisionError: division by zero
```"""


def estimate(text: str) -> int:
    return len(text) // 4 + 1


@pytest.fixture(autouse=True)
def _no_outputs() -> Iterator[None]:
    HistoryManager.outputs.clear()  # all shells of a process share it
    yield
    HistoryManager.outputs.clear()


class Cells:
    """Runs cells; `%%chat` in one notes what `--context` would add, and answers nothing."""

    def __init__(self, shell: Any) -> None:
        self.shell, self.seen = shell, Seen(shell)
        self.count, self.budget, self.context = 2, 2000, ""
        self.seen.register()

        @no_var_expand
        def chat(line: str, cell: str | None = None) -> None:
            self.context = recent_cells(shell, self.seen, self.count, budget=self.budget, estimate=estimate)

        shell.register_magic_function(chat, "line_cell", "chat")

    def run(self, code: str, cell_id: str | None = None) -> None:
        self.shell.run_cell(code, store_history=True, cell_id=cell_id)

    def asked(self, count: int = 2, budget: int = 2000) -> str:
        self.count, self.budget = count, budget
        self.run("%%chat\nwhy?", "asking")
        return self.context


@pytest.fixture
def cells(shell: Any) -> Cells:
    return Cells(shell)


def test_last_cells_and_what_they_put_out(cells: Cells) -> None:
    cells.run("'too old'")
    cells.run("import sys\nprint('hello')\nprint('warned', file=sys.stderr)\nx = 2\nx * 21")
    cells.run("def f():\n    1/0\nf()")
    assert cells.asked() == EXPECTED


@pytest.mark.parametrize("count", [0, 2])
def test_nothing_before_is_no_context(cells: Cells, count: int) -> None:
    assert cells.asked(count) == ""


def test_questions_and_superseded_runs_are_passed_over(cells: Cells) -> None:
    cells.run("a = 1", "one")
    cells.run("b = 1", "two")
    cells.run("b = 2", "two")
    cells.asked()
    cells.run("r = %chat hi")
    assert [line for line in cells.asked().split("\n") if line.startswith("In [")] == ["In [1]:", "In [3]:"]
    assert "b = 1" not in cells.context


def test_asking_changes_nothing_of_the_history(cells: Cells) -> None:
    cells.run("x = 1")
    cells.asked()
    assert dict(HistoryManager.outputs) == {}


def test_long_cells_lose_their_middle_and_the_newest_get_most(cells: Cells) -> None:
    for name in "abc":
        cells.run("\n".join(f"{name}{number} = {number}" for number in range(300)))
    text = cells.asked(3, 600)
    assert estimate(text) <= 600
    assert text.count("characters left out …]") == 3
    parts = [len(part) for part in text.split("In [")[1:]]
    assert parts == sorted(parts)
    assert parts[-1] > 2 * parts[0]
    assert "c0 = 0" in text
    assert "c299 = 299" in text


def test_what_one_cell_leaves_another_uses(cells: Cells) -> None:
    cells.run("\n".join(f"a{number} = {number}" for number in range(100)))
    cells.run("b = 1")
    assert "left out" not in cells.asked(2, 700)


def test_what_does_not_fit_at_all_is_counted(cells: Cells) -> None:
    for number in range(40):
        cells.run(f"x{number} = {'1 + ' * 40}1")
    text = cells.asked(40, 400)
    assert estimate(text) <= 400
    assert "x39 =" in text
    shown = text.count("In [")
    assert f"The last {shown} cells" in text
    assert f"({40 - shown} more left out for length)" in text


def test_output_of_100_mb_is_cut(cells: Cells) -> None:
    cells.run("print('x')")
    HistoryManager.outputs[1][0].bundle["stream"] = ["x" * 100_000_000]
    text = cells.asked(1, 500)
    assert estimate(text) <= 500
    assert "characters left out …]" in text


def test_output_is_as_a_person_saw_it(cells: Cells) -> None:
    cells.run("print('10%\\r50%\\r100%\\r\\n\\x1b[31mred\\x1b[0m ```')\nobject()")
    assert "```\n100%\nred ```\n<object>\n```" in cells.asked(1)


def test_interrupted_cell_says_so(cells: Cells) -> None:
    cells.run("print(1)\nraise KeyboardInterrupt")
    assert cells.asked(1).endswith("```\n1\n(interrupted)\n```")


def test_shell_without_history_shows_the_cells(cells: Cells) -> None:
    cells.run("x = 1")
    assert "x = 1" in recent_cells(object(), cells.seen, 1, estimate=estimate)
