"""One row of a comparison as a view shows it: the words, what came of them, and the quiet line below."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.frames.compare.columns import PARAM, SCORE, VAR, turns_of
from nbllm.frames.compare.formatting import shown
from nbllm.frames.templates import is_null

GENERATED = ("response", "parsed")
"""The columns whose values the figures, the scores and the verdict belong to."""
_NAMES = {"param_temperature": "t"}
_PLAIN = ("model", "prompt", "input", "system", *GENERATED)  # their values say what they are
_ENDINGS = {"length": "cut short (length)", "interrupted": "interrupted", "timeout": "timeout"}
_MAX_ERROR, _MAX_LABEL = 300, 40
_MAX_SCORES = 8
_SPACE = re.compile(r"\s+")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """What one row has to show in its cell.

    Attributes:
        label: what tells it from the others in the cell; "" where it is alone.
        text: None where there is no value.
        is_prose: whether `text` is a text of the frame, and no number or structure.
        passed: None where nothing was judged.
        error: in one line; "" where there is none.
    """

    label: str
    text: str | None
    is_prose: bool
    passed: bool | None
    scores: str
    figures: str
    error: str

    @property
    def verdict(self) -> str:
        """With a sign, for a colour alone is not seen by all; "" where there is none."""
        sign = "" if self.passed is None else ("✓ passed" if self.passed else "✗ failed")
        return " · ".join(part for part in (sign, self.scores) if part)

    @property
    def placeholder(self) -> str:
        """What stands where there is no text to show; "" where there is, or an error says why not."""
        if self.text is None:
            return "" if self.error else "—"
        return "" if self.text.strip() else "(empty)"


def entry_of(row: Row, value: str, label: str) -> Entry:
    """The entry for the column `value` of this row, which may lack any of the standard columns."""
    what = row[value]
    text = None if is_null(what) else words(what)
    error = "" if is_null(row.get("error")) else one_line(row["error"], _MAX_ERROR)
    if value not in GENERATED:
        return Entry(label, text, isinstance(what, str), _flag(what), "", "", error if text is None else "")
    passed = _flag(row.get("passed"))
    return Entry(label, text, isinstance(what, str), passed, _scores(row), _figures(row), error)


def labels_of(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """What tells rows of one cell apart, as `t=0.8 #2`: those of `columns` in which they differ, else their number."""
    if len(rows) < 2:
        return [""] * len(rows)
    differing = [name for name in columns if len({words(row[name]) for row in rows}) > 1]
    labels = [" ".join(labelled(name, row[name]) for name in differing) for row in rows]
    if len(set(labels)) == len(labels):
        return labels
    counts: dict[str, int] = {}
    for index, label in enumerate(labels):
        counts[label] = counts.get(label, 0) + 1
        labels[index] = f"{label} ({counts[label]})".strip()
    return labels


def labelling_columns(names: Sequence[Any]) -> list[str]:
    """Which columns may tell rows apart, in the order in which a label has them."""
    texts = [name for name in names if isinstance(name, str)]
    variables = [name for name in texts if name.startswith(VAR)]
    params = [name for name in texts if name.startswith(PARAM)]
    before = [name for name in ("prompt", *([] if variables else ["case"])) if name in texts]
    return [*before, *variables, *(name for name in ("model", "system", *params, "repeat") if name in texts)]


def labelled(name: object, value: Any) -> str:
    """A value with as much of its column's name as it needs: `0.8` of a temperature is `t=0.8`."""
    if name == "repeat" and not is_null(value):
        return f"#{int(value) + 1}"
    text = one_line(words(value), _MAX_LABEL)
    if name in _PLAIN:
        return text
    return f"{short_name(name)}={text}"


def short_name(name: object) -> str:
    text = str(name)
    return shown(_NAMES.get(text) or text.removeprefix(PARAM).removeprefix(VAR))


def words(value: Any) -> str:
    """A value of any column as text that is safe to show."""
    if is_null(value):
        return "—"
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list | tuple):
        return shown(json.dumps(value, ensure_ascii=False, default=str))
    return shown(str(value))


def read_aloud(text: str) -> str:
    """An `input` that is a list of messages, as `role: text` for each."""
    turns = turns_of(text)
    if len(turns) == 1 and turns[0]["role"] == "user":
        return words(turns[0]["content"])
    return "\n".join(f"{words(turn['role'])}: {words(turn['content'])}" for turn in turns)


def one_line(text: Any, length: int) -> str:
    """`text` without its line breaks, cut."""
    line = _SPACE.sub(" ", shown(str(text))).strip()
    return line if len(line) <= length else line[: length - 1] + "…"


def _flag(value: Any) -> bool | None:
    return bool(value) if type(value).__name__ in ("bool", "bool_") else None


def _scores(row: Row) -> str:
    names = [name for name in row if isinstance(name, str) and name.startswith(SCORE) and not is_null(row[name])]
    return " · ".join(f"{shown(name.removeprefix(SCORE))} {words(row[name])}" for name in names[:_MAX_SCORES])


def _figures(row: Row) -> str:
    """`1.2 s · 45 tok/s · 120→56`, and how the answer ended if not by itself."""
    parts = []
    if (milliseconds := _number(row, "duration_ms")) is not None:
        parts.append(_duration(milliseconds))
    if speed := _number(row, "tokens_per_s"):
        parts.append(f"{speed:,.{0 if speed >= 10 else 1}f} tok/s")
    before, after = _number(row, "input_tokens"), _number(row, "output_tokens")
    if before is not None and after is not None:
        parts.append(f"{before:,.0f}→{after:,.0f}")
    if ending := _ENDINGS.get(str(row.get("finish_reason"))):
        parts.append(ending)
    return " · ".join(parts)


def _duration(milliseconds: float) -> str:
    if milliseconds < 950:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    if is_null(value) or isinstance(value, str):
        return None
    return float(value)  # type: ignore[arg-type]
