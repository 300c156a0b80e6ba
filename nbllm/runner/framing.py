"""Messages on a byte stream: each has its length before it, four bytes, big-endian."""

from __future__ import annotations

from nbllm.runner.errors import ProtocolError

MAX_FRAME_BYTES = 1 << 28
_LENGTH_BYTES = 4


def framed(payload: bytes) -> bytes:
    """Raises ProtocolError when the payload is larger than the other side would take."""
    if len(payload) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a message of {len(payload):,} bytes is too large to send")
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


class FrameReader:
    """Takes the bytes as they come, and gives the payloads that are complete."""

    def __init__(self) -> None:
        self._held = bytearray()

    def push(self, data: bytes) -> list[bytes]:
        """Raises ProtocolError when what comes is no frame of ours."""
        self._held += data
        payloads = []
        while len(self._held) >= _LENGTH_BYTES:
            length = int.from_bytes(self._held[:_LENGTH_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a message of {length:,} bytes was announced: this is not nbllm's protocol")
            end = _LENGTH_BYTES + length
            if len(self._held) < end:
                break
            payloads.append(bytes(self._held[_LENGTH_BYTES:end]))
            del self._held[:end]
        return payloads
