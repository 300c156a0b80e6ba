"""A comparison as a file: a page to read, lines of JSON to train on, a table that a spreadsheet opens without harm.

messages   {"messages": [{"role": "system" | "user" | "assistant", "content": ...}, ...]}
dpo        {"prompt": [message, ...], "chosen": [message], "rejected": [message]}
rows       {"run_id": ..., "model": ..., ...}    every column; what is missing is null, a time is ISO 8601
"""

from __future__ import annotations

import html
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.frames.compare.arrangement import Names
from nbllm.frames.compare.columns import require_results, turns_of
from nbllm.frames.compare.grid import GridOptions, Render, grid
from nbllm.frames.compare.preferences import preferences
from nbllm.frames.compare.style import PAGE
from nbllm.frames.templates import is_null
from nbllm.store.files import replace_file

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["messages", "rows", "dpo"]
Target = str | os.PathLike[str]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
# Of full width too: a spreadsheet may take them for the others.
_FORMULA = re.compile(r"[\s\x00\u200b\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
# Some readers of lines take these for line ends, and no UTF-8 has the last.
_ESCAPED_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@overload
def to_html(frame: pd.DataFrame, path: None = None, **options: Unpack[GridOptions]) -> str: ...
@overload
def to_html(frame: pd.DataFrame, path: Target, **options: Unpack[GridOptions]) -> None: ...
def to_html(
    frame: pd.DataFrame,
    path: Target | None = None,
    *,
    rows: Names = "input",
    cols: Names = "model",
    values: Names = "response",
    diff: bool = False,
    render: Render = "markdown",
    max_rows: int | None = None,
) -> str | None:
    """The grid as a whole page with no script, which may load nothing; the text, unless it goes into a file.

    Args:
        path: of the file to write, in one piece.
        rows, cols, values, diff, render, max_rows: as in `grid`, but that all rows are shown.
    """
    body = grid(frame, rows=rows, cols=cols, values=values, diff=diff, render=render, max_rows=max_rows).html
    title = html.escape(f"{len(frame):,} answers compared")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>\n{PAGE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    return _delivered(page, path)


@overload
def to_jsonl(
    frame: pd.DataFrame, path: None = None, format: Format = "messages", *, score: str | None = None
) -> str: ...
@overload
def to_jsonl(frame: pd.DataFrame, path: Target, format: Format = "messages", *, score: str | None = None) -> None: ...
def to_jsonl(
    frame: pd.DataFrame, path: Target | None = None, format: Format = "messages", *, score: str | None = None
) -> str | None:
    """One JSON object a line; the text, unless it goes into a file.

    Rows without a response are in "rows" only. To train on the good ones, choose them first:
    `res[res.passed].llm.to_jsonl("good.jsonl")`.

    Args:
        path: of the file to write, in one piece.
        format: "messages": each answer as a conversation, as fine-tuning at OpenAI and elsewhere takes it. "dpo":
            preferences, of each prompt (and its system text) the answer with the highest score as chosen and the one
            with the lowest as rejected, none where all are equal; of the frame that `pairwise` gives, each pair that
            has a winner. "rows": every column of every row.
        score: the column that "dpo" prefers by, needed where there are several; `passed` where there is none.

    Raises:
        ParameterError: the frame is no comparison, there is no such format or score, or there is no pair for "dpo".
        InvalidRequestError: the file cannot be written.
    """
    if format not in ("messages", "rows", "dpo"):
        raise ParameterError("format", f'must be "messages", "rows" or "dpo", not {format!r:.40}')
    if score is not None and format != "dpo":
        raise ParameterError("score", 'chooses answers for format="dpo" only')
    records = {"messages": _messages, "rows": _rows}
    lines = list(preferences(frame, score) if format == "dpo" else records[format](frame))
    if format == "dpo" and not lines:
        raise ParameterError(
            "format", '"dpo" has no pair to write: no prompt has two different answers of which one is better. Compare '
            "several models, or at a temperature above 0 with repeat=, or choose another score="
        )  # fmt: skip
    return _delivered("".join(f"{_json(line)}\n" for line in lines), path)


@overload
def to_csv(frame: pd.DataFrame, path: None = None) -> str: ...
@overload
def to_csv(frame: pd.DataFrame, path: Target) -> None: ...
def to_csv(frame: pd.DataFrame, path: Target | None = None) -> str | None:
    """The frame without its index for a spreadsheet; the text, unless it goes into a file.

    The file is UTF-8 with the mark by which Excel knows it.
    A text that a spreadsheet would take for a formula gets an apostrophe before it: one that starts with `=`, `+`,
    `-` or `@` (behind white space too), a tab, or a line break. So a text that starts with a hyphen is not quite what
    the model wrote; pandas' own `to_csv` writes it unchanged, for programs that do not run formulas.
    """
    import csv

    safe = frame.copy(deep=False)
    safe.columns = [_harmless(name) for name in frame.columns]
    for number, dtype in enumerate(frame.dtypes):
        if getattr(dtype, "kind", "O") not in "biufcmM":
            safe.isetitem(number, frame.iloc[:, number].astype(object).map(_harmless))
    text = io.StringIO()
    safe.to_csv(text, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    return _delivered(text.getvalue(), path, encoding="utf-8-sig")


def _harmless(value: Any) -> Any:
    if is_null(value) or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else _json(_plain(value))
    return f"'{text}" if _FORMULA.match(text) else text


def _messages(frame: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    require_results(frame)
    systems = frame["system"] if "system" in frame.columns else [None] * len(frame)
    for text, system, response in zip(frame["input"], systems, frame["response"], strict=True):
        if not is_null(response) and not is_null(text):
            yield {"messages": [*turns_of(text, system), {"role": "assistant", "content": response}]}


def _rows(frame: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    names = [str(name) for name in frame.columns]
    for values in frame.itertuples(index=False, name=None):
        yield {name: _plain(value) for name, value in zip(names, values, strict=True)}


def _plain(value: Any) -> Any:
    """A value of a frame as JSON has it."""
    if is_null(value) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # an array of numpy, or one of its numbers
        return _plain(value.tolist())
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _ESCAPED_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _delivered(text: str, path: Target | None, *, encoding: str = "utf-8") -> str | None:
    if path is None:
        return text
    try:
        target = Path(os.path.realpath(Path(path).expanduser()))  # a link stays a link
        replace_file(target, text.encode(encoding, "replace"), prefix=f".{target.name}.", mode=0o644)
    except (OSError, TypeError, ValueError) as error:
        raise InvalidRequestError(f"cannot write {path!s:.200}: {getattr(error, 'strerror', None) or error}") from error
    return None
