"""`summarize` and `translate`: a text made of each text."""

from __future__ import annotations

from typing import Any

from nbllm.core.numbers import as_number
from nbllm.errors import ParameterError
from nbllm.frames.templates import shown
from nbllm.frames.verbs.result import carried_out
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source, new_name
from nbllm.frames.verbs.texts import text_plan


def summarize(source: Source, col: Any, *, max_words: int | None = None, into: str = "summary", **options: Any) -> Any:
    number = as_number(int, max_words)
    if max_words is not None and (number is None or number < 1):
        raise ParameterError("max_words", f"must be a whole number from 1 on, not {max_words!r:.100}")
    length = "in one or two sentences" if number is None else f"in at most {number} word{'s' * (number != 1)}"
    return _rewritten(source, col, f"Summarize the text below {length}. Answer with the summary only.", into, options)


def translate(source: Source, col: Any, to: str, *, into: str = "translation", **options: Any) -> Any:
    if not isinstance(to, str) or not to.strip():
        raise ParameterError("to", f"must be a language, such as 'French', not {to!r:.100}")
    instruction = f"Translate the text below into {to.strip()}. Answer with the translation only."
    return _rewritten(source, col, instruction, into, options)


def _rewritten(source: Source, col: Any, instruction: str, into: str, options: dict[str, Any]) -> Any:
    into, settings = new_name("into", into), Settings.of(options)
    plan = text_plan(
        source, settings, source.column("col", col), instruction, {into: "str"},
        lambda response: [response.text], lambda row: shown(row[into]), base=into,
    )  # fmt: skip
    return carried_out(source, plan, settings)
