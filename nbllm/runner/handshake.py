"""What a runner and its parent say to each other before there is a socket: one line of JSON each way.

parent, to stdin     {"spec": {"path": ..., "name": ..., "folder": ..., "options": {...}}, "token": "..."}
runner, on stdout    {"type": "ready", "address": {...}}      or      {"type": "failed", "error": "<base64>"}

After its line the parent keeps stdin open; its end tells the runner to go.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from nbllm.errors import EngineError, ModelLoadError
from nbllm.runner import messages
from nbllm.runner.errors import ProtocolError
from nbllm.runner.listener import Address
from nbllm.runner.spec import RunnerSpec

MAX_LINE_BYTES = 1 << 20


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent wants. The token travels here because others can read arguments and environments."""

    spec: RunnerSpec
    token: str


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    address: Address


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """`error` is a message of the engine protocol, which knows how errors travel."""

    error: bytes

    @classmethod
    def because(cls, error: BaseException) -> Failed:
        return cls(error=messages.encoded_answer(messages.Refused(0, error)))

    def reason(self) -> BaseException:
        message = messages.decoded_answer(self.error)
        return message.error if isinstance(message, messages.Refused) else EngineError("the runner failed")


def encoded(message: Order | Ready | Failed) -> bytes:
    """Raises ModelLoadError when a path is not text."""
    try:
        return msgspec.json.encode(message, enc_hook=_plain) + b"\n"
    except UnicodeEncodeError as exc:
        raise ModelLoadError("the name of the model's file or folder is not UTF-8: rename it") from exc


def decoded_order(line: bytes) -> Order:
    """Raises ProtocolError when it is none."""
    try:
        return msgspec.json.decode(line, type=Order, dec_hook=_rebuilt)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"not an order to a runner: {exc}") from exc


def decoded_outcome(line: bytes) -> Ready | Failed:
    """Raises ProtocolError when it is none."""
    try:
        outcome: Ready | Failed = msgspec.json.decode(line, type=Ready | Failed)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"the runner said something else than ready: {line[:100]!r}") from exc
    return outcome


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value).__name__)


def _rebuilt(kind: type, value: str) -> object:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind.__name__)
