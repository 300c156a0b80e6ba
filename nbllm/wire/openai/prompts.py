"""The four forms in which texts come: a string, strings, token ids, lists of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbllm.core.numbers import as_number
from nbllm.errors import ParameterError

_MAX_PROMPTS = 2048
_MAX_TOKEN_ID = 2**31 - 1


def texts_or_tokens(given: str | Sequence[Any], param: str) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
    """One text or one tuple of token ids for each prompt.

    Raises:
        ParameterError: there is none, there are too many, or of several kinds.
    """
    if isinstance(given, str):
        return (given,)
    if not given:
        raise ParameterError(param, "is an empty list: give a text")
    if isinstance(given[0], int | float):
        return (token_ids(given, param),)
    if len(given) > _MAX_PROMPTS:
        raise ParameterError(param, f"has {len(given):,} entries; at most {_MAX_PROMPTS:,} are taken")
    for index, entry in enumerate(given):
        if not isinstance(entry, type(given[0])):
            raise ParameterError(f"{param}[{index}]", "is of another kind than the first: all texts, or all token ids")
    if isinstance(given[0], str):
        return tuple(given)
    return tuple(_ids_of_one(entry, f"{param}[{index}]") for index, entry in enumerate(given))


def _ids_of_one(entry: Sequence[Any], param: str) -> tuple[int, ...]:
    if not entry:
        raise ParameterError(param, "is an empty list: give token ids")
    return token_ids(entry, param)


def token_ids(given: Sequence[Any], param: str) -> tuple[int, ...]:
    """Raises ParameterError for what is no token id of any model."""
    if all(type(token) is int and 0 <= token <= _MAX_TOKEN_ID for token in given):
        return tuple(given)
    return tuple(_token_id(token, f"{param}[{index}]") for index, token in enumerate(given))


def _token_id(token: Any, param: str) -> int:
    number = None if isinstance(token, str | list) else as_number(int, token)
    if number is None or not 0 <= number <= _MAX_TOKEN_ID:
        kind = "a text or a list" if isinstance(token, str | list) else f"{token!r:.60}"
        raise ParameterError(param, f"must be a token id, not {kind}")
    return int(number)
