"""Likelihoods of tokens in the two shapes that OpenAI has for them."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from typing import Any

from nbllm.core import TokenLogprob

_NEVER = -9999.0  # what OpenAI sends for a token that cannot come; JSON has no infinity


def _number(logprob: float) -> float:
    return max(logprob, _NEVER) if math.isfinite(logprob) else _NEVER


def chat_entries(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Chats': a token may be part of a character, then only its `bytes` are exact."""
    return [
        _chat_entry(token.data, token.logprob)
        | {"top_logprobs": [_chat_entry(data, logprob) for _, data, logprob in token.top]}
        for token in tokens
    ]


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {"content": chat_entries(tokens), "refusal": None}


def _chat_entry(data: bytes, logprob: float) -> dict[str, Any]:
    return {"token": data.decode("utf-8", errors="replace"), "logprob": _number(logprob), "bytes": list(data)}


class TokenLists:
    """Old completions': four lists of equal length, which grow from chunk to chunk.

    Args:
        num_top: how many rivals were asked for; 0 reports none.
        offset: where in the choice's text, in characters, the first token begins; below 0, where some tokenizers put
            a space that is not there.
    """

    def __init__(self, num_top: int, offset: int = 0) -> None:
        self._num_top = num_top
        self._offset = offset
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def lists(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        """The next tokens."""
        return {
            "tokens": [_old_text(token.data) for token in tokens],
            "token_logprobs": [_number(token.logprob) for token in tokens],
            "top_logprobs": [_rivals(token) for token in tokens] if self._num_top else None,
            "text_offset": [self._placed(token.data) for token in tokens],
        }

    def _placed(self, data: bytes) -> int:
        offset = self._offset
        self._offset += len(self._decoder.decode(data))
        return max(0, offset)


def prompt_lists(text: str, tokens: Sequence[TokenLogprob], num_top: int) -> dict[str, Any]:
    """An echoed prompt's tokens. The first has no likelihood, which is null, unless the engine began the prompt."""
    written = b"".join(token.data for token in tokens).decode("utf-8", errors="replace")
    lists = TokenLists(num_top, len(text) - len(written)).lists(tokens)
    if tokens and math.isnan(tokens[0].logprob):
        lists["token_logprobs"][0] = None
        if num_top:
            lists["top_logprobs"][0] = None
    return lists


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One set of lists after the other."""
    return {name: None if first[name] is None else first[name] + second[name] for name in first}


def _rivals(token: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens, and the one that came, though it be none of them."""
    rivals: dict[str, float] = {}
    for data, logprob in [(data, logprob) for _, data, logprob in token.top] + [(token.data, token.logprob)]:
        rivals.setdefault(_old_text(data), _number(logprob))
    return rivals


def _old_text(data: bytes) -> str:
    r"""Part of a character is written as its bytes, as OpenAI does: "bytes:\xf0\x9f"."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
