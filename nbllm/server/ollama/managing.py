"""From `POST /api/copy` and `DELETE /api/delete` to the names in them."""

from __future__ import annotations

from dataclasses import dataclass

from nbllm.errors import InvalidRequestError
from nbllm.wire.decoding import unknown_keys
from nbllm.wire.ollama.listing import untagged
from nbllm.wire.ollama.shapes import CopyBody, ManageBody, model_of, parsed


@dataclass(frozen=True, slots=True)
class NamedCall:
    """A request about a model; `unknown` are keys that mean nothing here, fit for the log."""

    model: str
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CopyCall:
    """A second name for a model; `unknown` as in NamedCall."""

    source: str
    destination: str
    unknown: tuple[str, ...] = ()


def parse_delete(data: bytes) -> NamedCall:
    """Read a request. Raises as `calls.parse_generate` does."""
    body, raw = parsed(data, ManageBody)
    return NamedCall(model_of(body), unknown_keys(raw, ManageBody))


def parse_copy(data: bytes) -> CopyCall:
    """Read a request. Raises as `calls.parse_generate` does."""
    body, raw = parsed(data, CopyBody)
    for what, name in (("source", body.source), ("destination", body.destination)):
        if not (name or "").strip():
            raise InvalidRequestError(f"{what} is required: the name of a model")
    return CopyCall(body.source or "", untagged(body.destination or ""), unknown_keys(raw, CopyBody))
