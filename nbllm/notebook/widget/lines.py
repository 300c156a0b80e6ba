"""The messages of a chat's lines, which `session.conversation.as_lines` made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nbllm.errors import InvalidRequestError, NbllmError

if TYPE_CHECKING:
    from nbllm.core import Message


def of_lines(lines: bytes) -> tuple[Message, ...]:
    """Raises InvalidRequestError, which names the line, if one is not a message."""
    from nbllm.session.requests import message

    found = []
    for number, line in enumerate(lines.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(message(json.loads(line.decode("utf-8", errors="surrogatepass"))))
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, NbllmError) else type(error).__name__
            raise InvalidRequestError(f"line {number:,} is not a message ({reason})") from error
    return tuple(found)
