"""Requests as clients write them, and chunks as an engine gives them."""

from __future__ import annotations

from typing import Any

import msgspec

from nbllm.core import Chunk, TokenLogprob
from nbllm.wire.openai.completions import CompletionCall, parse_completion
from nbllm.wire.sse import SseParser

USER = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": USER} | fields)


def completion(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "prompt": "hi"} | fields)


def completion_call(**fields: Any) -> CompletionCall:
    return parse_completion(completion(**fields))


def embeddings(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "input": "hi"} | fields)


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def likely(data: bytes, logprob: float = -0.5, *rivals: bytes) -> TokenLogprob:
    top = tuple((number, rival, -1.0 - number) for number, rival in enumerate(rivals))
    return TokenLogprob(7, data, logprob, top)


def events(parts: list[bytes]) -> list[Any]:
    """The JSON of each event; `[DONE]` as it is."""
    return [data if data == "[DONE]" else msgspec.json.decode(data) for data in SseParser().push(b"".join(parts))]


def done(index: int = 0, **fields: Any) -> Chunk:
    return Chunk(index=index, **{"finish_reason": "stop", **fields})
