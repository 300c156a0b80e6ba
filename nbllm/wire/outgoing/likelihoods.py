"""Log-probabilities of tokens, in the shape of chat answers and in the old one of completions."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from nbllm.core import TokenLogprob
from nbllm.wire.outgoing.parsing import entries, number, text

UNKNOWN_TOKEN = -1
"""The id of a token of which the server told the text only."""


def logprobs(choice: object) -> tuple[TokenLogprob, ...]:
    """Of one choice of an event; llama-server sends the shape of chats for completions too."""
    told = choice.get("logprobs") if isinstance(choice, dict) else None
    if not isinstance(told, dict):
        return ()
    if isinstance(told.get("content"), list):
        return tuple(_entry(entry) for entry in told["content"])
    return tuple(_old_entries(told))


def _entry(entry: object) -> TokenLogprob:
    top = tuple((_id(rival), _bytes(rival), number(rival, "logprob")) for rival in entries(entry, "top_logprobs"))
    return TokenLogprob(_id(entry), _bytes(entry), number(entry, "logprob"), top)


def _id(entry: object) -> int:
    token = entry.get("id") if isinstance(entry, dict) else None
    return token if isinstance(token, int) and not isinstance(token, bool) and token >= 0 else UNKNOWN_TOKEN


def _bytes(entry: object) -> bytes:
    """The exact bytes, else those of the text, where a part of a character has become U+FFFD."""
    exact = entries(entry, "bytes")
    if exact and all(isinstance(byte, int) and 0 <= byte < 256 for byte in exact):
        return bytes(exact)
    return _encoded(text(entry, "token"))


def _encoded(token: str) -> bytes:
    return token.encode("utf-8", errors="replace")


def _old_entries(told: dict[str, Any]) -> list[TokenLogprob]:
    columns = zip_longest(entries(told, "tokens"), entries(told, "token_logprobs"), entries(told, "top_logprobs"))
    return [
        TokenLogprob(UNKNOWN_TOKEN, _encoded(token), _number(logprob), _rivals(top))
        for token, logprob, top in columns
        if isinstance(token, str)
    ]


def _rivals(top: object) -> tuple[tuple[int, bytes, float], ...]:
    rivals = top.items() if isinstance(top, dict) else ()
    return tuple((UNKNOWN_TOKEN, _encoded(str(token)), _number(logprob)) for token, logprob in rivals)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
