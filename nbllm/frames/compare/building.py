"""Outcomes of a run made into the columns of a comparison."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nbllm.errors import NbllmError
from nbllm.frames.asks import Outcome
from nbllm.frames.compare.cells import Cell, Cells, Filled, as_dicts
from nbllm.frames.compare.columns import DTYPES, FINISH_REASONS, PARAM, VAR, input_of
from nbllm.frames.compare.params import column_of
from nbllm.session.response import Response

if TYPE_CHECKING:
    import pandas as pd

_ID_LENGTH = 16


@dataclass(slots=True)
class Part:
    """What one model answered.

    Attributes:
        outcomes: one a cell; empty when the model as a whole failed, and `error` says why.
    """

    model: str
    model_hash: str
    outcomes: list[Outcome | None] = field(default_factory=list)
    load_s: float | None = None
    error: str | None = None
    finished_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def failure(self) -> str:
        """Why there is no answer at all, "" when there is one or nothing was asked."""
        asked = [outcome for outcome in self.outcomes if outcome is not None]
        if self.error is not None or not asked or any(outcome.value is not None for outcome in asked):
            return self.error or ""
        return f"{type(asked[0].error).__name__}: {asked[0].error}"


def frame_of(parts: Sequence[Part], cells: Cells, run_id: str) -> pd.DataFrame:
    """The tidy frame: model by model, each with its cells in order."""
    import pandas as pd

    values: dict[str, list[Any]] = {name: [] for name in DTYPES}
    for part in parts:
        for row in _rows(part, cells):
            for name, column in values.items():
                column.append(row.get(name, run_id if name == "run_id" else None))
    categories = _categories(parts, cells)
    frame = pd.DataFrame({name: _column(name, column, categories.get(name)) for name, column in values.items()})
    numbers = list(cells) * len(parts)
    frame = _with_extras(frame, _vars(cells, numbers), after="case")
    return _with_extras(frame, _params(cells, numbers), after="model_hash")


def _rows(part: Part, cells: Cells) -> Iterable[dict[str, Any]]:
    outcomes = part.outcomes or [None] * len(cells)
    for cell, filled, outcome in zip(cells, cells.filled(), outcomes, strict=True):
        yield {
            "response_id": _response_id(part, cell, filled, cells),
            "prompt": cells.prompts[cell.prompt].name,
            "prompt_idx": cell.prompt,
            "case": cell.case,
            "model": part.model,
            "model_hash": part.model_hash,
            "seed": filled.seed,
            "repeat": cell.repeat,
            "system": filled.system,
            "input": None if filled.turns is None else input_of(as_dicts(filled.turns)),
            "load_ms": None if part.load_s is None else part.load_s * 1e3,
            "created_at": part.finished_at,
            "cached": False,
            **_answer(outcome),
            **_failure(part, filled, outcome),
        }


def _answer(outcome: Outcome | None) -> dict[str, Any]:
    response = None if outcome is None else outcome.value
    if outcome is None or not isinstance(response, Response):
        return {}
    timings, usage = response.timings, response.usage
    return {
        "response": response.text,
        "parsed": response.parsed,
        "finish_reason": response.finish_reason,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "ttft_ms": timings.first_token_s * 1e3 or None,
        "duration_ms": outcome.duration_s * 1e3,
        "tokens_per_s": timings.tokens_per_s(usage.completion_tokens) or None,
        "cached": outcome.cached,
    }


def _failure(part: Part, filled: Filled, outcome: Outcome | None) -> dict[str, Any]:
    """The row's error, if it has one. A row that lacks a value asks nothing, so nothing can fail."""
    if filled.turns is None and filled.error is None:
        return {}
    error: NbllmError | BaseException | str | None = filled.error or (part.error if outcome is None else outcome.error)
    if error is None and outcome is not None and isinstance(outcome.value, Response):
        error = outcome.value.error
    if error is None:
        return {}
    is_whole = outcome is not None and isinstance(outcome.value, Response) and outcome.value.error is None
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return {"error": text} if is_whole else {"error": text, "finish_reason": "error"}


def _response_id(part: Part, cell: Cell, filled: Filled, cells: Cells) -> str:
    turns = None if filled.turns is None else as_dicts(filled.turns)
    params = cells.params[cell.params].values
    whole = [part.model_hash or part.model, turns, filled.system, params, filled.seed, list(cell)]
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode("ascii"))
    return digest.hexdigest()[:_ID_LENGTH]


def _categories(parts: Sequence[Part], cells: Cells) -> dict[str, list[str]]:
    return {
        "model": [part.model for part in parts],
        "prompt": [prompt.name for prompt in cells.prompts],
        "finish_reason": list(FINISH_REASONS),
    }


def _column(name: str, values: list[Any], categories: list[str] | None) -> pd.Series[Any]:
    import pandas as pd

    if categories is not None:
        return pd.Series(pd.Categorical(values, categories=categories))
    return pd.Series(values, dtype=DTYPES[name])


def _vars(cells: Cells, numbers: Sequence[Cell]) -> pd.DataFrame:
    frame = cells.table.frame([cell.case for cell in numbers]).add_prefix(VAR)
    if cells.expected is not None and cells.expected.by_prompt is not None:
        frame[VAR + cells.expected.column] = cells.gold() * (len(numbers) // max(1, len(cells)))
    return frame


def _params(cells: Cells, numbers: Sequence[Cell]) -> pd.DataFrame:
    import pandas as pd

    names = dict.fromkeys(name for params in cells.params for name in params.values)
    columns = {
        PARAM + name: column_of([cells.params[cell.params].values.get(name) for cell in numbers]) for name in names
    }
    return pd.DataFrame(columns, index=range(len(numbers)))


def _with_extras(frame: pd.DataFrame, extras: pd.DataFrame, *, after: str) -> pd.DataFrame:
    import pandas as pd

    place = list(frame.columns).index(after) + 1
    return pd.concat([frame.iloc[:, :place], extras, frame.iloc[:, place:]], axis=1)
