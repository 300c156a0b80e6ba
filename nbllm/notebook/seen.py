"""The cells that ran since the extension was loaded: their source, and what went wrong in them."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from nbllm.notebook.failures import Failure, failure_of, is_failure

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult

MAX_CELLS = 1000
_WRAPPERS = re.compile(r"\A(?:\s*%%(?:time|timeit|capture)\b.*\n)*\s*")
_OUR_CELL = re.compile(r"%%(?:chat|fix|doc|test)\b")
_OUR_LINE = re.compile(r"(?:[\w\s.,]+=\s*)?%(?:chat|llm|explain)\b")


@dataclass(frozen=True, slots=True)
class Running:
    """The cell that runs now. `count` is None if nothing of it stays in the history."""

    count: int | None
    cell_id: str | None
    source: str


@dataclass(slots=True)
class SeenCell:
    """One run of a cell. It may have been stopped, so that it was not `was_ok` and yet has no failure."""

    count: int
    cell_id: str | None
    source: str
    failure: Failure | None = None
    was_ok: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it only talks to a model, which the conversation or nobody needs to hear again."""
        source = _WRAPPERS.sub("", self.source, count=1)
        if _OUR_CELL.match(source):
            return True
        lines = [line.strip() for line in source.split("\n") if line.strip()]
        return bool(lines) and all(_OUR_LINE.match(line) or line.startswith("#") for line in lines)


class Seen:
    """Watches the cells of a shell, from `register` to `unregister`, and remembers the last of them.

    It keeps text only: what a failed cell's frames hold can be freed.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._cells: dict[int, SeenCell] = {}
        self._deleted: deque[tuple[int, str | None]] = deque(maxlen=MAX_CELLS)
        self._local = threading.local()
        self._latest: Running | None = None
        self._callbacks = (("pre_run_cell", self._begin), ("post_run_cell", self._end))

    def register(self) -> None:
        """Begin to watch; twice is harmless."""
        for event, callback in self._callbacks:
            self._shell.events.register(event, callback)

    def unregister(self) -> None:
        """Leave the shell's events as they were; what was seen stays."""
        for event, callback in self._callbacks:
            if callback in self._shell.events.callbacks[event]:
                self._shell.events.unregister(event, callback)
        self._local, self._latest = threading.local(), None

    @property
    def running(self) -> Running | None:
        """The cell that runs in this thread, or else the last one that began in any. None between cells."""
        stack = self._stack()
        return stack[-1] if stack else self._latest

    @property
    def cell_id(self) -> str | None:
        """The running cell's id; None between cells, and where the front end sends none."""
        return self.running.cell_id if self.running else None

    @property
    def execution(self) -> int:
        """The execution count of the running cell, between cells of the last one."""
        count = self.running.count if self.running else None
        return self._prompt_count if count is None else count

    @property
    def cells(self) -> list[SeenCell]:
        """In the order they ran, the running one included."""
        return list(self._cells.values())

    @property
    def errors(self) -> Mapping[int, str]:
        """The tracebacks of the cells that failed, by execution count."""
        return {cell.count: cell.failure.traceback for cell in self.cells if cell.failure}

    @property
    def last_error(self) -> Failure | None:
        """The latest failure that needs an explanation; others in between do not hide it."""
        failures = (cell.failure for cell in reversed(self.cells))
        return next((failure for failure in failures if failure and not failure.explains_itself), None)

    def failure_of(self, code: str) -> Failure | None:
        """How `code` failed when it last ran, or if it never did, what the running cell held before.

        None if that run went well.
        """
        code, running = code.strip(), self.running
        earlier = [cell for cell in reversed(self.cells) if not cell.is_ours]
        for cell in earlier:
            if cell.source.strip() == code:
                return cell.failure
        if running is None or running.cell_id is None:
            return None
        return next((cell.failure for cell in earlier if cell.cell_id == running.cell_id), None)

    def is_gone(self, source: str, run: int) -> bool:
        """Whether a cell of this source, which the run of this count inserted, is not there any more.

        It never came if that run failed. JupyterLab says which cells were deleted when it runs the next one; one that
        never ran may be any. Where nothing says so, nothing was deleted.
        """
        inserter = self._cells.get(run)
        if inserter is not None and not inserter.was_ok:
            return True
        return any(count > run and known in (None, source.strip()) for count, known in self._deleted)

    @property
    def _prompt_count(self) -> int:
        count: int = self._shell.displayhook.prompt_count
        return count

    def _stack(self) -> list[Running]:
        stack: list[Running] | None = getattr(self._local, "stack", None)
        if stack is None:
            stack = self._local.stack = []
        return stack

    def _begin(self, info: ExecutionInfo) -> None:
        stack = self._stack()
        source = str(info.raw_cell)
        if info.store_history:
            count = self._prompt_count
            running = Running(count, info.cell_id, source)
            self._note_deleted(info, count)
            self._add(SeenCell(count, info.cell_id, source))
        elif stack:  # a cell in the cell, as %%capture and %rerun make it
            running = Running(stack[-1].count, stack[-1].cell_id, source)
        else:
            running = Running(None, info.cell_id, source)
        stack.append(running)
        self._latest = running

    def _end(self, result: ExecutionResult | None) -> None:
        """`result` is None when ipykernel cancelled an async cell."""
        info = result.info if result else None
        if info is not None and not (info.raw_cell or "").strip():
            return  # an empty cell: it did not begin
        running = self._pop()
        if running is not None and running.count in self._cells and (info is None or info.store_history):
            self._cells[running.count].was_ok = result is not None and bool(result.success)
        if result is None or info is None:
            return
        if running is None and info.store_history:  # the cell that loaded the extension
            running = Running(result.execution_count, info.cell_id, str(info.raw_cell))
        result = self._first_result(result, running)
        has_run = result.error_before_exec is None
        error = result.error_in_exec if has_run else result.error_before_exec
        if error is not None and is_failure(error) and running is not None and running.count is not None:
            self._note_failure(running, running.count, error, has_run)

    def _first_result(self, result: ExecutionResult, running: Running | None) -> ExecutionResult:
        """What the cell did, where `result` is how IPython failed to describe it: an exception's str() may raise."""
        first = self._shell.last_execution_result
        if result.execution_count is None and running and first and first.execution_count == running.count:
            return cast("ExecutionResult", first)
        return result

    def _pop(self) -> Running | None:
        stack = self._stack()
        running = stack.pop() if stack else None
        self._latest = stack[-1] if stack else None
        return running

    def _add(self, cell: SeenCell) -> None:
        if self._cells and next(reversed(self._cells)) >= cell.count:
            self._cells = {}  # %reset let the counts start again
        self._cells[cell.count] = cell
        if len(self._cells) > MAX_CELLS:
            del self._cells[next(iter(self._cells))]

    def _note_failure(self, running: Running, count: int, error: BaseException, has_run: bool) -> None:
        if count not in self._cells:
            self._add(SeenCell(count, running.cell_id, running.source))
        cell = self._cells[count]
        cell.failure = failure_of(
            error, self._label, count=count, cell_id=running.cell_id, source=cell.source, has_run=has_run
        )

    def _label(self, filename: str) -> str | None:
        found = self._shell.compile.format_code_name(filename)
        return found[1] if found else None

    def _note_deleted(self, info: ExecutionInfo, count: int) -> None:
        meta = getattr(info, "cell_meta", None)  # older releases of IPython have none
        told = meta.get("deletedCells") if isinstance(meta, dict) else None
        if not isinstance(told, list) or not told:
            return
        sources = {cell.cell_id: cell.source.strip() for cell in self.cells}
        self._deleted.extend((count, sources.get(cell_id)) for cell_id in told if isinstance(cell_id, str))
