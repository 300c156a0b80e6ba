"""Counting and converting tokens: `/v1/tokenize`, `/v1/detokenize`, `/v1/chat/completions/input_tokens`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.wire.decoding import decoded, unknown_keys
from nbllm.wire.openai.chat import ChatCall, parse_chat
from nbllm.wire.openai.prompts import token_ids
from nbllm.wire.openai.sampling import checked_model
from nbllm.wire.openai.shapes import DetokenizeBody, TokenizeBody


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeCall:
    """A text to turn into token ids; control-token texts in it are taken as such if `parse_special`."""

    model: str
    content: str
    parse_special: bool
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetokenizeCall:
    """Token ids to turn into text."""

    model: str
    tokens: tuple[int, ...]
    unknown: tuple[str, ...]


def parse_tokenize(body: bytes) -> TokenizeCall:
    """Read a request. Raises as `parse_chat` does."""
    given, raw = decoded(body, TokenizeBody)
    return TokenizeCall(
        model=checked_model(given.model),
        content=given.content,
        parse_special=given.parse_special is not False,
        unknown=unknown_keys(raw, TokenizeBody),
    )


def parse_detokenize(body: bytes) -> DetokenizeCall:
    """Read a request. Raises as `parse_chat` does."""
    given, raw = decoded(body, DetokenizeBody)
    return DetokenizeCall(
        model=checked_model(given.model),
        tokens=token_ids(given.tokens, "tokens"),
        unknown=unknown_keys(raw, DetokenizeBody),
    )


def parse_input_tokens(body: bytes) -> ChatCall:
    """Read a chat whose prompt is to be counted, and not answered. Raises as `parse_chat` does."""
    return parse_chat(body)


def tokenize_body(model: str, tokens: Sequence[int]) -> dict[str, Any]:
    return {"model": model, "tokens": list(tokens), "count": len(tokens)}


def detokenize_body(model: str, content: str) -> dict[str, Any]:
    return {"model": model, "content": content}


def input_tokens_body(count: int) -> dict[str, Any]:
    return {"object": "response.input_tokens", "input_tokens": count}
