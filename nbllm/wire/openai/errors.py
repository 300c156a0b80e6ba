"""Failures as OpenAI's clients read them."""

from __future__ import annotations

from typing import Any

import msgspec

from nbllm.wire import sse

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an answer that is not 2xx."""
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": _TYPES.get(status, fallback), "param": param, "code": code}}


def error_event(status: int, message: str, *, param: str | None = None, code: str | None = None) -> bytes:
    """The last event of a stream that failed after its headers were sent; no `[DONE]` comes after it."""
    encodable = message.encode("utf-8", errors="replace").decode()  # it may quote what a model or an engine said
    return sse.event(msgspec.json.encode(error_body(status, encodable, param=param, code=code)))
