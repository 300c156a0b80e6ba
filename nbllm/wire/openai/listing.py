"""`GET /v1/models`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def model_body(name: str, modified: int) -> dict[str, Any]:
    """One model; clients that check the shape insist on `created`, for which a file has only its modification time."""
    return {"id": name, "object": "model", "created": modified, "owned_by": "nbllm"}


def models_body(models: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """All of them."""
    return {"object": "list", "data": list(models)}
