"""Files of saved conversations, as a person names them: whatever is wrong with one is said in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.errors import InvalidRequestError, NbllmError

if TYPE_CHECKING:
    from nbllm.core import Message

SUFFIX = ".jsonl"


def write(path: str | os.PathLike[str], messages: Sequence[Message]) -> Path:
    """Write messages to a file, which gets the suffix if it has none, and return it.

    Raises:
        InvalidRequestError: it cannot be written, or is there and is no saved conversation.
    """
    from nbllm.session.conversation import write_messages

    with _one_line("written", path):
        target = _target(path)
        if os.path.lexists(target):
            _refuse_other(target)
        return write_messages(target, messages)


def read(path: str | os.PathLike[str]) -> tuple[Message, ...]:
    """The messages of a saved conversation; the suffix may be left out.

    Raises:
        InvalidRequestError: it cannot be read, is damaged or empty.
    """
    from nbllm.session.conversation import read_messages

    with _one_line("read", path):
        source = Path(path).expanduser()
        if not source.suffix and not source.exists():
            source = source.with_suffix(SUFFIX)
        messages = read_messages(source)
    if not messages:
        raise InvalidRequestError(f"{_shown(path)} holds no messages")
    return messages


def _target(path: str | os.PathLike[str]) -> Path:
    target = Path(path).expanduser()
    if target.is_dir():
        raise InvalidRequestError(f"{_shown(path)} is a folder; give the path of a file in it")
    if target.suffix.lower() not in ("", SUFFIX):
        instead = _shown(target.with_suffix(SUFFIX))
        raise InvalidRequestError(f"a conversation is saved as {SUFFIX}: give {instead}, not {_shown(path)}")
    if not target.parent.is_dir():
        raise InvalidRequestError(f"there is no folder {_shown(target.parent)}; make it, or give another one")
    return target if target.suffix else target.with_suffix(SUFFIX)


def _refuse_other(target: Path) -> None:
    """Nothing but a saved conversation is overwritten; a link that leads nowhere holds nothing."""
    from nbllm.session.conversation import read_messages

    try:
        read_messages(target)
    except FileNotFoundError:
        return
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"{_shown(target)} is there and is no saved conversation; give another name, or delete it"
        ) from error


@contextmanager
def _one_line(done: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """What the system refuses is the user's to correct, and so is what is no path (ValueError, RuntimeError)."""
    try:
        yield
    except NbllmError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InvalidRequestError(f"{_shown(path)} cannot be {done}: {reason}; give another path") from error


def _shown(path: object) -> str:
    from nbllm.store.header import shown

    return shown(path)
