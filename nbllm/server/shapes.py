"""JSON bodies as OpenAI's clients read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an answer that is not 2xx."""
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    kind = _ERROR_TYPES.get(status, fallback)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def model(name: str, modified: int) -> dict[str, Any]:
    """One model; clients that check the shape insist on `created`, for which a file has only its modification time."""
    return {"id": name, "object": "model", "created": modified, "owned_by": "nbllm"}


def model_list(models: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The answer of `GET /v1/models`."""
    return {"object": "list", "data": list(models)}
