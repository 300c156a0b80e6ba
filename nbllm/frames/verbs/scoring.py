"""`score`: a mark for each row by a rubric."""

from __future__ import annotations

from typing import Any

from nbllm.frames.verbs.result import carried_out
from nbllm.frames.verbs.scale import Scale, mark_plan
from nbllm.frames.verbs.source import Source, new_name
from nbllm.frames.verbs.statement import Statement


def score(source: Source, rubric: str, *, low: int = 1, high: int = 5, into: str = "score", **options: Any) -> Any:
    into, scale = new_name("into", into), Scale(low, high)
    statement = Statement.of(source, "rubric", rubric)
    instruction = (
        f"Rate the following on a scale {scale.wording}. Answer with the number only.\nWhat counts: {statement.wording}"
    )
    return carried_out(source, *mark_plan(source, scale, options, instruction, statement.uses, statement.blocks, into))
