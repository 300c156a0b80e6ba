"""What is left of a cell's exception once its frames are let go: text, and the types of the variables."""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType, ModuleType, TracebackType

from IPython.core.error import UsageError

from nbllm.errors import InvalidRequestError, ModelError
from nbllm.markup.characters import plain_text
from nbllm.markup.cuts import without_middle

MAX_TRACEBACK_CHARS = 8000
_MAX_MESSAGE_CHARS = 2000
_MAX_FRAMES = 30
_MAX_VARIABLES = 30
_MAX_COLUMNS = 20
_MAX_NAME_CHARS = 60
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{4,16}\b")
_CO_OPTIMIZED = 1  # of functions; the code of cells and classes has its names in a mapping
_STOPPED = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset, range)
# Of these alone attributes are read: a property of anything else may compute for minutes, or fail.
_ARRAYS = frozenset(["numpy", "pandas", "polars", "pyarrow", "scipy", "torch", "jax", "jaxlib", "cupy", "xarray"])

CellLabel = Callable[[str], str | None]
"""The name of the cell that a file name of compiled code stands for; None for a file on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A cell that failed.

    Attributes:
        source: the cell as it was typed.
        traceback: without the frames of IPython; cells are called `In[3]`.
        variables: the names where the user's code failed, with types and sizes and never values.
        explains_itself: it is nbllm's or a magic's, and its one line says what to type instead.
    """

    count: int
    cell_id: str | None
    source: str
    type_name: str
    message: str
    traceback: str
    variables: dict[str, str]
    explains_itself: bool


def is_failure(error: BaseException | None) -> bool:
    """Whether a cell failed, and was not only stopped."""
    return error is not None and not isinstance(error, _STOPPED)


def failure_of(
    error: BaseException, label: CellLabel, *, count: int, cell_id: str | None, source: str, has_run: bool
) -> Failure:
    """Describe `error`; nothing of it is referred to afterwards.

    Args:
        has_run: it came from the cell's code, not from reading it.
    """
    name = _name_of(type(error), "__main__", "builtins")
    try:
        told = traceback.TracebackException.from_exception(error, limit=-_MAX_FRAMES)
        message, text = _message(told), _text(told, label, has_run)
        variables = _variables(error.__traceback__, label)
    except Exception:  # noqa: BLE001  # the exception is the user's, and so is the code that describes it
        message, text, variables = "", f"{name}: <the exception cannot be described>", {}
    return Failure(
        count=count,
        cell_id=cell_id,
        source=source,
        type_name=name,
        message=message,
        traceback=text,
        variables=variables,
        explains_itself=isinstance(error, (InvalidRequestError, ModelError, UsageError)),
    )


def _message(told: traceback.TracebackException) -> str:
    return plain_text(without_middle(str(told), _MAX_MESSAGE_CHARS))


def _text(told: traceback.TracebackException, label: CellLabel, has_run: bool) -> str:
    _rename(told, label, keep=has_run)
    # Part by part: a message of megabytes must not push out the frames above it.
    parts = (plain_text(without_middle(part, _MAX_MESSAGE_CHARS)) for part in told.format())
    return without_middle(without_addresses("".join(_lined(parts)).rstrip("\n")), MAX_TRACEBACK_CHARS, head=0.3)


def without_addresses(text: str) -> str:
    """`text` without the places of objects in memory, which say nothing and differ from run to run."""
    return _ADDRESS.sub("", text)


def _lined(parts: Iterator[str]) -> Iterator[str]:
    for part in parts:
        yield part if part.endswith("\n") else part + "\n"


def _rename(told: traceback.TracebackException, label: CellLabel, *, keep: bool) -> None:
    """Leave out the frames before the first cell's, all of them unless `keep`, and call cells by their names."""
    seen: set[int] = set()
    waiting = [(told, keep)]
    while waiting:
        one, keep_all = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        names = [label(frame.filename) for frame in one.stack]
        first = next((index for index, name in enumerate(names) if name), None)
        for frame, name in zip(one.stack, names, strict=True):
            frame.filename = name or frame.filename
        one.stack[: (0 if keep_all else len(names)) if first is None else first] = []
        if issubclass(one.exc_type or object, SyntaxError) and one.filename:
            one.filename = label(one.filename) or one.filename
        waiting += [(other, True) for other in (one.__cause__, one.__context__, *(one.exceptions or ())) if other]


def _variables(trace: TracebackType | None, label: CellLabel) -> dict[str, str]:
    """The types of what the innermost frame of the user's own code could see and mentions."""
    frame = None
    while trace is not None:
        if label(trace.tb_frame.f_code.co_filename):
            frame = trace.tb_frame
        trace = trace.tb_next
    return dict(_described(frame)) if frame is not None else {}


def _described(frame: FrameType) -> Iterator[tuple[str, str]]:
    num_left = _MAX_VARIABLES
    local_names, global_names = frame.f_locals, frame.f_globals
    for name in _names(frame.f_code, list(local_names)):
        value = local_names.get(name, global_names.get(name, _MISSING))
        if value is _MISSING or not name.isidentifier() or isinstance(value, (ModuleType, type)) or callable(value):
            continue
        yield name, kind_of(value)
        num_left -= 1
        if not num_left:
            return


_MISSING = object()


def _names(code: CodeType, local_names: list[str]) -> dict[str, None]:
    """In a function its own variables and the globals it mentions, elsewhere what the code mentions."""
    own = local_names if code.co_flags & _CO_OPTIMIZED else []
    return dict.fromkeys([*own, *code.co_names])


def kind_of(value: object) -> str:
    """The type of `value`, with its size where that is known without running anybody's code."""
    kind = type(value)
    name = _name_of(kind, "builtins", "__main__")
    if kind in _SIZED:
        unit = " characters" if kind is str else " items" if kind not in (bytes, bytearray) else " bytes"
        return f"{name}, {len(value):,}{unit}"  # type: ignore[arg-type]  # they all have a length
    if kind.__module__.partition(".")[0] not in _ARRAYS:
        return name
    facts = [name]
    shape, dtype, columns = (getattr(value, attribute, None) for attribute in ("shape", "dtype", "columns"))
    if isinstance(shape, tuple) and shape:
        facts.append(f"shape {tuple(shape)}")
    if dtype is not None:
        facts.append(f"dtype {str(dtype)[:_MAX_NAME_CHARS]}")
    if columns is not None and "Frame" in name:
        facts.append(f"columns {_column_names(columns)}")
    return ", ".join(facts)


def _column_names(columns: object) -> str:
    names = [repr(name)[:_MAX_NAME_CHARS] for name in columns[:_MAX_COLUMNS]]  # type: ignore[index]
    num_more = len(columns) - len(names)  # type: ignore[arg-type]
    return ", ".join(names) + (f" and {num_more:,} more" if num_more else "")


def _name_of(kind: type, *unnamed: str) -> str:
    """The name as a person would write it: `pandas.DataFrame`, not the module that it is kept in."""
    module = str(kind.__module__).partition(".")[0]
    name = kind.__qualname__[:_MAX_NAME_CHARS]
    return plain_text(name if module in unnamed else f"{module}.{name}")
