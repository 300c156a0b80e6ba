from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import Any

import pytest

from nbllm.notebook.failures import MAX_TRACEBACK_CHARS, kind_of
from nbllm.notebook.seen import MAX_CELLS, Running, Seen

HIDDEN = """
class Hidden(Exception):
    def __str__(self):
        raise RuntimeError("no text")
raise Hidden
"""
CHAIN = """
try:
    {}["a"]
except KeyError as error:
    raise ValueError("second") from error
"""
GROUP = """
def part(text):
    try:
        raise TypeError(text)
    except TypeError as error:
        return error
raise ExceptionGroup("both", [part("one"), ValueError("two")])
"""


class Cells:
    """Runs cells while they are watched."""

    def __init__(self, shell: Any) -> None:
        self.shell, self.seen = shell, Seen(shell)
        self.seen.register()

    def run(self, code: str, cell_id: str | None = None, **options: Any) -> Any:
        return self.shell.run_cell(code, **{"store_history": True, "cell_id": cell_id, **options})


@pytest.fixture
def cells(shell: Any) -> Cells:
    return Cells(shell)


def test_unregister_leaves_the_events_as_they_were(shell: Any) -> None:
    before = {event: list(functions) for event, functions in shell.events.callbacks.items()}
    seen = Seen(shell)
    seen.register()
    seen.register()
    assert shell.events.callbacks != before
    seen.unregister()
    seen.unregister()
    assert shell.events.callbacks == before


@pytest.mark.parametrize(
    "code", ["found = seen.running", "await nothing()\nfound = seen.running"], ids=["sync", "async"]
)
def test_running_cell_is_known_while_it_runs(cells: Cells, code: str) -> None:
    async def nothing() -> None: ...

    cells.shell.push({"seen": cells.seen, "nothing": nothing})
    cells.run("1")
    cells.run(code, "id-2")
    assert cells.shell.user_ns["found"] == Running(2, "id-2", code)
    assert (cells.seen.running, cells.seen.cell_id) == (None, None)


def test_cell_within_a_cell_counts_as_that_cell(cells: Cells) -> None:
    cells.shell.push({"seen": cells.seen})
    cells.run("%%capture\nfound = seen.running\n1/0", "id-1")
    assert cells.shell.user_ns["found"] == Running(1, "id-1", "found = seen.running\n1/0\n")
    assert [(cell.count, cell.cell_id, cell.was_ok) for cell in cells.seen.cells] == [(1, "id-1", True)]
    assert "ZeroDivisionError" in cells.seen.errors[1]


def test_running_cell_is_known_in_a_thread_it_starts(cells: Cells) -> None:
    cells.shell.push({"seen": cells.seen, "threading": threading})
    start = "thread = threading.Thread(target=lambda: found.append(seen.cell_id))\nthread.start()"
    cells.run(f"found = []\n{start}\nthread.join()", "id-1")
    assert cells.shell.user_ns["found"] == ["id-1"]


def test_empty_silent_and_unstored_cells_leave_nothing(cells: Cells) -> None:
    cells.run("   ")
    cells.run("1/0", silent=True)
    cells.run("1/0", store_history=False)
    assert (cells.seen.cells, cells.seen.running, cells.seen.last_error) == ([], None, None)


def test_failed_cell_is_described(cells: Cells) -> None:
    cells.run("def halve(number):\n    rest = [1, 2]\n    return number / 0")
    cells.run("text = 'abc'\nhalve(len(text))", "id-2")
    failure = cells.seen.last_error
    assert failure is not None
    assert (failure.count, failure.cell_id) == (2, "id-2")
    assert failure.source == "text = 'abc'\nhalve(len(text))"
    assert (failure.type_name, failure.message) == ("ZeroDivisionError", "division by zero")
    assert failure.variables == {"number": "int", "rest": "list, 2 items"}
    lines = [line for line in failure.traceback.split("\n") if "^" not in line]
    assert lines == [
        "Traceback (most recent call last):",
        '  File "In[2]", line 2, in <module>',
        "    halve(len(text))",
        '  File "In[1]", line 3, in halve',
        "    return number / 0",
        "ZeroDivisionError: division by zero",
    ]
    assert cells.seen.errors == {2: failure.traceback}


def test_variables_of_a_cell_are_those_it_mentions(cells: Cells) -> None:
    cells.run("import math\nother = 1\nclass Thing: ...")
    cells.run("thing, data = Thing(), {1: 2}\nmath.sqrt(data[thing])")
    assert cells.seen.last_error is not None
    assert cells.seen.last_error.variables == {"data": "dict, 1 items", "thing": "Thing"}


@pytest.mark.parametrize(
    ("code", "type_name", "says", "not_says"),
    [
        pytest.param("x = (", "SyntaxError", ['File "In[1]", line 1', "incomplete input"], "IPython", id="syntax"),
        pytest.param("if 1:\nx", "IndentationError", ['File "In[1]", line 2'], "IPython", id="indentation"),
        pytest.param("await nothing", "NameError", ['File "In[1]", line 1'], "IPython", id="async"),
        pytest.param(HIDDEN, "Hidden", ["Hidden: <exception str() failed>"], "IPython", id="no text"),
        pytest.param(CHAIN, "ValueError", ["KeyError: 'a'", "direct cause", "second"], "IPython", id="chain"),
        pytest.param(GROUP, "ExceptionGroup", ["one", "two", 'File "In[1]"'], "IPython", id="group"),
        pytest.param("raise ValueError('\\x1b[31mred')", "ValueError", ["ValueError: red"], "\x1b", id="colours"),
        pytest.param("raise KeyError(object())", "KeyError", ["<object object>"], " at 0x", id="addresses"),
        pytest.param("import json\njson.loads('{')", "json.JSONDecodeError", ["decoder.py"], "IPython", id="library"),
    ],
)
def test_every_kind_of_error_is_text(cells: Cells, code: str, type_name: str, says: list[str], not_says: str) -> None:
    cells.run(code)
    failure = cells.seen.last_error
    assert failure is not None
    assert failure.type_name == type_name
    assert [part for part in says if part not in failure.traceback] == []
    assert not_says not in failure.traceback


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('long ' * 1_000_000)",
        "raise ValueError('line\\n' * 1_000_000)",
        "def down(n): return down(n - 1) if n else 1/0\ndown(60)",
        "def one(n): return two(n)\ndef two(n): return one(n - 1) if n else 1/0\none(30)",
    ],
    ids=["long line", "many lines", "recursion", "mutual recursion"],
)
def test_traceback_is_bounded_and_keeps_its_frames(cells: Cells, code: str) -> None:
    cells.run(code)
    text = cells.seen.errors[1]
    assert len(text) < MAX_TRACEBACK_CHARS + 100
    assert 'File "In[1]"' in text
    assert ("left out" in text) == ("ValueError" in code)


def test_interrupt_and_exit_are_no_errors(cells: Cells) -> None:
    cells.run("raise KeyboardInterrupt")
    with pytest.warns(UserWarning, match="To exit"):
        cells.run("raise SystemExit")
    cells.run("import asyncio\nraise asyncio.CancelledError")
    assert (cells.seen.errors, cells.seen.last_error) == ({}, None)
    assert [cell.was_ok for cell in cells.seen.cells] == [False, False, False]


def test_last_error_is_one_that_does_not_explain_itself(cells: Cells) -> None:
    cells.run("1/0")
    cells.run("%no_such_magic")
    cells.run("from nbllm.errors import ParameterError\nraise ParameterError('seed', 'must be a number')")
    cells.run("1")
    assert cells.seen.last_error is not None
    assert cells.seen.last_error.count == 1
    assert cells.seen.errors[3].endswith("seed: must be a number")


def test_failure_of_code_is_that_of_its_last_run(cells: Cells) -> None:
    found: list[Any] = []
    cells.shell.push({"look": lambda code: found.append(cells.seen.failure_of(code))})
    cells.shell.register_magic_function(lambda line, cell: found.append(cells.seen.failure_of(cell)), "cell", "fix")
    cells.run("x", "id-1")
    cells.run("1/0", "id-2")
    cells.run("%%fix\nx\n", "id-1")
    assert found[-1].type_name == "NameError"
    cells.run("%%fix\nx + 1", "id-1")
    assert found[-1].source == "x"
    cells.run("look('never ran')", "id-3")
    assert found[-1] is None
    cells.run("x = 1", "id-4")
    cells.run("x", "id-1")
    cells.run("%%fix\nx", "id-1")
    assert found[-1] is None


class Big:
    pass


def test_what_a_failed_cell_held_is_freed(cells: Cells) -> None:
    cells.shell.push({"Big": Big, "weakref": weakref})
    cells.run("def hold():\n    big = Big()\n    global watch\n    watch = weakref.ref(big)\n    raise ValueError(1)")
    cells.run("hold()")
    assert cells.seen.last_error is not None
    assert cells.seen.last_error.variables == {"big": f"{Big.__module__.partition('.')[0]}.Big"}
    watch = cells.shell.user_ns["watch"]
    assert watch() is not None  # IPython holds the last traceback, until there is another
    cells.run("1/0")
    cells.run("del hold")
    sys.exc_info()
    gc.collect()
    assert watch() is None


def test_seen_is_bounded(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbllm.notebook.seen.MAX_CELLS", 3)
    assert MAX_CELLS == 1000
    for number in range(5):
        cells.run(f"1/0 + {number}")
    assert list(cells.seen.errors) == [3, 4, 5]


def test_reset_of_the_counts_forgets(cells: Cells) -> None:
    cells.run("1/0")
    cells.run("2")
    cells.shell.reset()
    cells.run("3")
    assert [(cell.count, cell.source) for cell in cells.seen.cells] == [(1, "3")]
    assert cells.seen.errors == {}


def test_cell_that_loads_it_is_seen_when_it_fails(shell: Any) -> None:
    seen = Seen(shell)
    shell.push({"seen": seen})
    shell.run_cell("seen.register()\n1/0", store_history=True, cell_id="id-1")
    assert [(cell.count, cell.cell_id) for cell in seen.cells] == [(1, "id-1")]
    assert seen.running is None


def test_event_without_a_result_ends_the_cell(cells: Cells) -> None:
    """ipykernel sends it when an async cell is interrupted."""
    cells.shell.push({"end": lambda: cells.shell.events.trigger("post_run_cell", None)})
    cells.seen.unregister()
    cells.seen.register()
    info = type("Info", (), {"raw_cell": "await x", "store_history": True, "cell_id": "id-1", "cell_meta": None})()
    cells.shell.execution_count += 1
    cells.shell.events.trigger("pre_run_cell", info)
    assert cells.seen.cell_id == "id-1"
    cells.shell.events.trigger("post_run_cell", None)
    assert cells.seen.running is None
    assert [cell.was_ok for cell in cells.seen.cells] == [False]


@pytest.mark.parametrize(
    ("source", "is_ours"),
    [
        ("%%chat -x\nhi", True),
        ("\n %%chat\nhi", True),
        ("%%time\n%%chat\nhi", True),
        ("%chat hi", True),
        ("# ask\nr = %chat hi\n%llm history", True),
        ("%explain", True),
        ("%%fix\nx", True),
        ("%chat hi\nx = 1", False),
        ("x = 1  # %chat", False),
        ("%chatter", False),
        ("%%timeit\nx", False),
        ("", False),
    ],
)
def test_cells_that_only_talk_to_a_model(cells: Cells, source: str, is_ours: bool) -> None:
    from nbllm.notebook.seen import SeenCell

    assert SeenCell(1, None, source).is_ours is is_ours


@pytest.mark.parametrize(
    ("deleted", "is_gone"),
    [(["other"], False), (["made"], True), (["never ran"], True), ([], False), (None, False), ([[]], False)],
)
def test_inserted_cell_is_gone_once_its_deletion_is_told(cells: Cells, deleted: Any, is_gone: bool) -> None:
    cells.run("'asks'", "asking")
    cells.run("x = 1", "made")
    cells.run("y = 1", "other")
    cells.run("2", "last", cell_meta={"deletedCells": deleted})
    assert cells.seen.is_gone("x = 1\n", 1) is is_gone


def test_inserted_cell_never_came_if_its_run_failed(cells: Cells) -> None:
    cells.run("raise KeyboardInterrupt", "asking")
    cells.run("1")
    assert cells.seen.is_gone("x", 1)
    assert not cells.seen.is_gone("x", 2)


def test_kinds_of_values_run_no_code_of_theirs() -> None:
    import numpy as np
    import pandas as pd

    class Trap(list[int]):
        shape = property(lambda self: 1 / 0)

        def __len__(self) -> int:
            raise AssertionError

    frame = pd.DataFrame({f"c{number}": [1, 2] for number in range(25)})
    assert kind_of(Trap()).endswith("Trap")
    assert kind_of("abc") == "str, 3 characters"
    assert kind_of(np.zeros((2, 3))) == "numpy.ndarray, shape (2, 3), dtype float64"
    assert kind_of(np.float32(1)) == "numpy.float32, dtype float32"
    assert kind_of(frame).startswith("pandas.DataFrame, shape (2, 25), columns 'c0', 'c1'")
    assert kind_of(frame).endswith("'c19' and 5 more")
