"""The words of a `%llm` command."""

from __future__ import annotations

from collections.abc import Sequence

from IPython.core.error import UsageError


def expect(command: str, words: Sequence[str], form: str, low: int, high: int | None = None) -> None:
    """Raise a UsageError with the form where there are fewer words or more.

    Args:
        high: the most words; `low` if it is not given.
    """
    if not low <= len(words) <= (low if high is None else high):
        raise UsageError(f"write %llm {command} {form}".rstrip())
