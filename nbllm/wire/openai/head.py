"""What every answer begins with, and the identity that stays the same over a stream."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import msgspec

from nbllm.wire import sse

_encode = msgspec.json.Encoder().encode


def chat_id() -> str:
    return f"chatcmpl-{secrets.token_hex(16)}"


def completion_id() -> str:
    return f"cmpl-{secrets.token_hex(16)}"


@dataclass(frozen=True, slots=True)
class Head:
    """Which answer this is, of which model."""

    id: str
    created: int
    model: str
    fingerprint: str

    def body(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class EventWriter:
    """Writes a stream's events: around each choice the same bytes, which are encoded once."""

    def __init__(self, head: Head, kind: str, include_usage: bool) -> None:
        self._start = _encode(head.body(kind)).removesuffix(b"}") + b',"choices":['
        self._end = b'],"usage":null}' if include_usage else b"]}"

    def choice(self, choice: dict[str, Any]) -> bytes:
        return sse.event(self._start + _encode(choice) + self._end)

    def usage(self, usage: dict[str, Any], timings: dict[str, Any]) -> bytes:
        """The event before the last, which has no choices."""
        return sse.event(self._start + b'],"usage":' + _encode(usage) + b',"timings":' + _encode(timings) + b"}")
