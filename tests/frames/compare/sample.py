"""Comparisons made by hand, in the columns and dtypes that nbllm.compare gives."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nbllm.frames.compare.columns import DTYPES, PARAM, SCORE

_ROW: dict[str, Any] = {
    "run_id": "r1",
    "response_id": "a",
    "prompt": "prompt",
    "prompt_idx": 0,
    "case": 0,
    "model": "small",
    "model_hash": "h",
    "seed": 1,
    "repeat": 0,
    "system": None,
    "input": "Why is the sky blue?",
    "response": "Because of scattering.",
    "parsed": None,
    "finish_reason": "stop",
    "input_tokens": 120,
    "output_tokens": 56,
    "cached_tokens": 0,
    "ttft_ms": 80.0,
    "duration_ms": 1240.0,
    "tokens_per_s": 45.2,
    "load_ms": 0.0,
    "passed": None,
    "cached": False,
    "error": None,
    "created_at": pd.Timestamp("2026-01-02T03:04:05Z"),
}


def results(*rows: dict[str, Any]) -> pd.DataFrame:
    """A frame with these rows; what a row does not say is filled in."""
    frame = pd.DataFrame([_ROW | row for row in rows], columns=list(dict.fromkeys([*_ROW, *_others(rows)])))
    return frame.astype(DTYPES).astype({name: "float64" for name in frame.columns if name.startswith((SCORE, PARAM))})


def two_models(num_inputs: int = 2) -> pd.DataFrame:
    """Every input answered by `small` and `big`, model by model as nbllm.compare does it."""
    return results(
        *(
            {"model": model, "case": case, "input": f"Question {case}?", "response": f"The {word} answer {case}."}
            for model, word in (("small", "short"), ("big", "long"))
            for case in range(num_inputs)
        )
    )


def _others(rows: tuple[dict[str, Any], ...]) -> list[str]:
    return [name for row in rows for name in row]
