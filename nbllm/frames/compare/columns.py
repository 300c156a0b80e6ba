"""The columns of a comparison: one row an answer.

    run_id response_id                which run, and which answer; the answer's id is the same when it is run again
    prompt prompt_idx case var_*      template's name and number, number of the data row, its columns, and its index
                                      where that is more than a count
    model model_hash                  name, and the hash of the file ("" for a model on another server)
    param_* seed repeat               what was varied, the row's seed, 0 to repeat - 1
    system input response parsed      `input` is the user's text; a list of messages is there as JSON text (`turns_of`)
    finish_reason                     stop length tool_calls interrupted timeout error
    input_tokens output_tokens cached_tokens
    ttft_ms duration_ms tokens_per_s load_ms
    score_* passed                    numbers; whether every yes-or-no score is yes, NA without one
    cached error created_at           `error` is NaN where there is none

A row with a missing value in its prompt has no input and no response.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from nbllm.core import FinishReason
from nbllm.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

DTYPES: Mapping[str, str] = {
    "run_id": "str",
    "response_id": "str",
    "prompt": "category",
    "prompt_idx": "int64",
    "case": "int64",
    "model": "category",
    "model_hash": "str",
    "seed": "int64",
    "repeat": "int64",
    "system": "str",
    "input": "str",
    "response": "str",
    "parsed": "object",
    "finish_reason": "category",
    "input_tokens": "Int64",
    "output_tokens": "Int64",
    "cached_tokens": "Int64",
    "ttft_ms": "float64",
    "duration_ms": "float64",
    "tokens_per_s": "float64",
    "load_ms": "float64",
    "passed": "boolean",
    "cached": "bool",
    "error": "str",
    "created_at": "datetime64[us, UTC]",
}
"""The columns that every comparison has, and their pandas dtypes."""
VAR, PARAM, SCORE = "var_", "param_", "score_"
"""What the names of the other columns begin with."""
REQUIRED = ("prompt", "prompt_idx", "case", "model", "repeat", "input", "response")
"""What a frame must still have to be looked at and computed with as a comparison."""
FINISH_REASONS: tuple[str, ...] = get_args(FinishReason)
ATTRS = "nbllm"
"""Where `frame.attrs` has the manifest."""


def require_results(frame: pd.DataFrame) -> None:
    """Check that this is a comparison's frame.

    Raises:
        ParameterError: it is none, or it lacks columns; one line names them.
    """
    columns = list(getattr(frame, "columns", ()))
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ParameterError(
            "frame", f"is no result of nbllm.compare: it has no column {', '.join(map(repr, missing))}; "
            "make one with nbllm.compare(prompts, models), and keep these columns"
        )  # fmt: skip


def score_columns(frame: pd.DataFrame) -> list[str]:
    return _beginning(frame.columns, SCORE)


def param_columns(frame: pd.DataFrame) -> list[str]:
    return _beginning(frame.columns, PARAM)


def no_column(param: str, name: object, known: Iterable[object], otherwise: str = "") -> ParameterError:
    """What to raise for a name that is no column, with the nearest one.

    Args:
        otherwise: what is said when none is near.
    """
    import difflib

    close = difflib.get_close_matches(str(name)[:200], list(map(str, known)), n=1, cutoff=0.4)
    advice = f"did you mean {close[0]!r}?" if close else otherwise
    return ParameterError(param, f"no column {name!r}" + (f": {advice}" if advice else ""))


def turns_of(text: str, system: Any = None) -> list[dict[str, str]]:
    """The messages of a row, as OpenAI writes them, from its `input` and `system`."""
    turns = _listed(text) or [{"role": "user", "content": text}]
    return [{"role": "system", "content": system}, *turns] if isinstance(system, str) and system else turns


def input_of(turns: Iterable[Mapping[str, str]]) -> str:
    """What `input` holds for these messages, `system` left out: one user's text, or the JSON that `turns_of` reads."""
    kept = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    if len(kept) == 1 and kept[0]["role"] == "user" and _listed(kept[0]["content"]) is None:
        return kept[0]["content"]
    return json.dumps(kept, ensure_ascii=False)


def _listed(text: str) -> list[dict[str, str]] | None:
    if not text.startswith('[{"role": '):
        return None
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return turns if all(isinstance(turn, dict) and {"role", "content"} <= set(turn) for turn in turns) else None


def _beginning(columns: Iterable[Any], start: str) -> list[str]:
    return [name for name in columns if isinstance(name, str) and name.startswith(start)]
