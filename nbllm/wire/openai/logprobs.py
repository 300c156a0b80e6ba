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
        offset: where in the choice's text, in characters, the first token begins.
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
        return offset


def prompt_lists(text: str, tokens: Sequence[TokenLogprob], num_top: int) -> dict[str, Any]:
    """An echoed prompt's tokens. Nothing comes before the first, so that it has no likelihood.

    Args:
        tokens: all but the first, whose own text is what they leave over of `text`. If they leave nothing, it is the
            token that begins every prompt, which is no part of the text and gets no entry.
    """
    data = text.encode("utf-8", errors="replace")
    rest = b"".join(token.data for token in tokens)
    first = data[: len(data) - len(rest)] if data.endswith(rest) else b""
    start = max(0, len(text) - len(rest.decode("utf-8", errors="replace")))
    after = TokenLists(num_top, start).lists(tokens)
    if tokens and not first:
        return after
    return {
        "tokens": [_old_text(first), *after["tokens"]],
        "token_logprobs": [None, *after["token_logprobs"]],
        "top_logprobs": [None, *after["top_logprobs"]] if num_top else None,
        "text_offset": [0, *after["text_offset"]],
    }


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
