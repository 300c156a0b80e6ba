"""Messages as JSON lines in memory, exactly as a saved conversation has them, and back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.errors import InvalidRequestError, NbllmError

if TYPE_CHECKING:
    from nbllm.core import Message


def as_lines(messages: Iterable[Message]) -> bytes:
    """Through a file, for `write_messages` is the one place where the format is written.

    Raises:
        InvalidRequestError: the file cannot be written; it names the folder.
    """
    from nbllm.session.conversation import write_messages

    try:
        with tempfile.TemporaryDirectory(prefix="nbllm-") as folder:
            return write_messages(Path(folder) / "chat.jsonl", messages).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidRequestError(
            f"no file can be written to {tempfile.gettempdir()}: {reason}; make room there, or set TMPDIR"
        ) from error


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
