"""What a variable of the notebook looks like to a model: text of a size that fits, whatever the variable is.

A string is there as it is, and so are the texts of a `Response` and of an object that says with `_repr_llm_()` what a
model should see. Tables and arrays become a summary. Everything else is what Python prints for it, cut where the
budget ends, with a note that says so. No text holds the address of an object: a cell that runs twice asks the same.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import re
import sys
import traceback
from bisect import bisect_right
from textwrap import dedent
from typing import Any

from nbllm.errors import InvalidRequestError
from nbllm.frames.describe import ADDRESS, MAX_CHARACTERS, describe, is_table

_PIECES = re.compile(
    r"(?P<word>[A-Z]?[a-z]+)|(?P<spaces> +)(?=(?P<digit>[0-9])?)|(?P<lines>\n+)|(?P<rule>([^\w\s])\6{2,})|(?P<one>.)",
    re.DOTALL,
)
_RARE = re.compile(r"(?<=[a-z])[jqxz]|[bcdfghklmnprstvw]{3}(?=[bcdfghklmnprstvw])")
_BREAK_IN_LIST = re.compile(r"""(?<=,)\n +(?=(?:[-+.\w]{1,40}|'[^'\\\n]{,40}'|"[^"\\\n]{,40}")[,\])}])""")
_SHELL_FILE = re.compile(r"[\\/](?:IPython|ipykernel)[\\/]")
_MAX_EXACT_SIZE = 20_000_000  # numbers of an array that are all looked at; about 0.1 s
_SUMMARY_SIZE = 1000


def as_text(value: object, spec: str = "", *, budget: int = 1000) -> str:
    """The text that stands for a value in a prompt.

    Args:
        spec: a format as in an f-string; for a table what `nbllm.frames.describe` knows.
        budget: tokens, by `estimate_tokens`, for what is summed up or cut. What is text already, or was formatted,
            is not cut.

    Raises:
        InvalidRequestError: it has no text, too much of it, or does not take the format; one line that says what to do.
    """
    try:
        return _text(value, spec, budget)
    except InvalidRequestError:
        raise
    except Exception as error:
        kind = _kind(value)
        if spec:
            raise InvalidRequestError(f"{kind} does not take the format {spec!r}: {failure(error)}") from error
        raise InvalidRequestError(
            f"{kind} cannot be shown: {failure(error)}; ask about a part of it, or give its class a _repr_llm_ method"
        ) from error


def estimate_tokens(text: str) -> int:
    """About the tokens of a text, rather too many: for English and tables up to twice what a tokenizer makes of it.

    A digit counts as one, as small models have it; a character outside ASCII as its bytes, which is the most there are.
    """
    total = len(_RARE.findall(text))
    for piece in _PIECES.finditer(text):
        size = piece.end() - piece.start()
        match piece.lastgroup:
            case "word":
                total += (size + 2) // 3
            case "spaces" | "digit":
                total += 1 + size // 16 if size > 1 or piece["digit"] else 0
            case "one":
                total += len(piece[0].encode("utf-8", "surrogatepass"))
            case _:
                total += 1 + size // 4
    return total + total // 50


def failure(error: BaseException) -> str:
    """An exception in one line, also one that cannot be printed."""
    kind = type(error).__name__
    try:
        return one_line(f"{kind}: {error}".removesuffix(": "))
    except Exception:  # noqa: BLE001  # a message that fails is the fault of who wrote it, and so was the exception
        return kind


def one_line(text: str, limit: int = 200) -> str:
    """For a message about something that may have any size and any line breaks."""
    start = " ".join(text[: 4 * limit].split())
    return start if len(start) <= limit else start[: limit - 1] + "…"


def _text(value: object, spec: str, budget: int) -> str:
    if not spec and (words := _own_words(value)) is not None:
        return _whole(words)
    if is_table(value):
        return describe(value, spec=spec, budget=budget, count=estimate_tokens)
    if spec:
        return _whole(format(value, spec))
    if isinstance(value, str):
        return _whole(str.__str__(value))
    if isinstance(value, BaseException):
        return _fitted(_traceback(value), budget, end=True)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and not numpy.ma.isMaskedArray(value):
        return _fitted(_array(value, budget), budget)
    if source := _source(value):
        return _fitted(source, budget)
    return _printed(value, budget)


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


# ---- texts that are not cut


def _own_words(value: object) -> str | None:
    """What `_repr_llm_` says, None without it. It is looked up on the class: a Mock has every attribute."""
    from nbllm.session.response import Response

    if isinstance(value, Response):
        return value.text
    method = getattr(type(value), "_repr_llm_", None)
    if method is None or isinstance(value, type):
        return None
    said = method(value)
    if isinstance(said, dict):
        said = said.get("text/markdown", said.get("text/plain", said))
    if said is None or isinstance(said, str):
        return said
    raise InvalidRequestError(
        f"_repr_llm_ of {_kind(value)} returned {_kind(said)}: it should return a str, or a dict with text/markdown or "
        f"text/plain"
    )


def _whole(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"a text of {len(text):,} characters, and at most {MAX_CHARACTERS:,} can stand for a variable: ask about a "
            f"part of it, such as part = text[:20_000]"
        )
    return text


# ---- texts that are cut


def _fitted(text: str, budget: int, *, end: bool = False, total: str = "") -> str:
    """The start of a text, or its end, as much as the budget allows.

    Args:
        total: what there is in all, where `text` is only its start.
    """
    window = 16 * budget  # characters; only blanks could have more of them to a token
    if len(text) <= window and not total and estimate_tokens(text) <= budget:
        return text
    total = total or f"{len(text):,} characters"
    part = text[-window:] if end else text[:window]

    def cut(size: int) -> str:
        note = f"… (cut: the {'last' if end else 'first'} {size:,} characters of {total})"
        return f"{note}\n{part[len(part) - size :]}" if end else f"{part[:size]}\n{note}"

    return cut(bisect_right(range(1, len(part) + 1), budget, key=lambda size: estimate_tokens(cut(size))))


class _Full(Exception):  # noqa: N818  # no error: enough was written
    pass


class _Page:
    """Takes so many characters, so that a list of a million items is not written to its end."""

    def __init__(self, limit: int) -> None:
        self._room, self._parts = limit, list[str]()

    def write(self, text: str) -> int:
        self._parts.append(text[: self._room])
        self._room -= len(text)
        if self._room < 0:
            raise _Full
        return len(text)

    @property
    def text(self) -> str:
        return _BREAK_IN_LIST.sub(" ", ADDRESS.sub("", "".join(self._parts)))


def _printed(value: object, budget: int) -> str:
    """What `print` shows where the class has its own words for that, such as a date; else the repr, laid out."""
    if type(value).__str__ is not object.__str__:
        return _fitted(ADDRESS.sub("", str(value)), budget)
    page = _Page(16 * budget)
    try:
        _lay_out(value, page)
    except _Full:
        total = _kind(value)
        if isinstance(value, list | tuple | dict | set | frozenset):
            total += f" of {len(value):,} item{'s' if len(value) != 1 else ''}"
        return _fitted(page.text, budget, total=total)
    return _fitted(page.text, budget)


def _lay_out(value: object, page: _Page) -> None:
    from IPython.lib.pretty import RepresentationPrinter

    printer = RepresentationPrinter(page, max_width=100, max_seq_length=0)  # type: ignore[no-untyped-call]
    if numpy := sys.modules.get("numpy"):  # else a list of them would be full of np.float64(…)
        kinds = {kind for kind in numpy.sctypeDict.values() if issubclass(kind, numpy.number | numpy.bool_)}
        printer.type_pprinters |= dict.fromkeys(kinds, _number)
    printer.pretty(value)  # type: ignore[no-untyped-call]
    printer.flush()  # type: ignore[no-untyped-call]


def _number(value: object, printer: Any, cycle: bool) -> None:
    printer.text(str(value))


def _traceback(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and _SHELL_FILE.search(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


# ---- code


def _source(value: Any) -> str | None:
    """The source of a function, method or class, if there is any."""
    try:
        code = inspect.unwrap(value) if callable(value) else value
        if not inspect.isroutine(code) and not isinstance(code, type):
            return None
        return dedent(inspect.getsource(code)).rstrip()
    except (OSError, TypeError, ValueError, SyntaxError):
        return _class_of_a_cell(value) if isinstance(value, type) else None


def _class_of_a_cell(kind: type) -> str | None:
    """`inspect` looks for a class in the file of its module, which a notebook lacks; IPython keeps the cells' lines."""
    if kind.__module__ != "__main__":
        return None
    files = [function.__code__.co_filename for function in vars(kind).values() if inspect.isfunction(function)]
    for name in [*files, *reversed(linecache.cache)]:
        entry = linecache.cache.get(name, ())
        if len(entry) == 4 and entry[1] is None and (found := _class_among(entry[2], kind.__qualname__)):
            return found
    return None


def _class_among(lines: list[str], name: str) -> str | None:
    code = "".join(lines)
    if f"class {name}" not in code:
        return None
    for node in ast.parse(code).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return "".join(lines[first - 1 : node.end_lineno]).rstrip()
    return None


# ---- arrays


def _array(array: Any, budget: int) -> str:
    import numpy as np

    array = np.asarray(array)
    if array.ndim == 0:
        return str(array)
    facts = f"numpy array, shape {array.shape}, {array.dtype}"
    if array.size <= _SUMMARY_SIZE:
        values = ADDRESS.sub("", np.array2string(array, threshold=_SUMMARY_SIZE, separator=", ", max_line_width=100))
        if estimate_tokens(text := f"{facts}:\n{values}") <= budget:
            return text
    corners = int(np.prod([min(size, 7) for size in array.shape]))
    few = array if corners <= _SUMMARY_SIZE // 8 else array.ravel()[:10] if array.flags.contiguous else array.flat[:10]
    values = np.array2string(few, threshold=0, precision=4, separator=", ", max_line_width=100)
    return f"{facts}{_statistics(array)}:\n{ADDRESS.sub('', values)}"


def _statistics(array: Any) -> str:
    import numpy as np

    kind = array.dtype.kind
    if kind not in "biuf" or not array.size:
        return ""
    step = -(-array.size // _MAX_EXACT_SIZE)
    about = "about " if step > 1 else ""
    numbers = array.flat[::step] if step > 1 else array
    if kind == "b":
        return f", {about}{numbers.mean():.1%} True"
    finite = numbers[np.isfinite(numbers)] if kind == "f" else numbers
    lost = 1 - finite.size / numbers.size
    others = f", {about}{lost:.1%} NaN or infinite" if lost else ""
    if not finite.size:
        return others
    low, high = (f"{end:.6g}" if kind == "f" else str(end) for end in (finite.min(), finite.max()))
    return f", {about}min {low}, mean {finite.mean(dtype=float):.6g}, max {high}{others}"
