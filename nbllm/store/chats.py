"""Where the chats of widgets are kept, so that they outlive their kernels.

    FOLDER/<id>.jsonl           what was said, a line a message
    FOLDER/<id>.bundle.json     {"text/markdown": "...", "text/plain": "..."}: what stands for the widget in a notebook

The folder has mode 0700 and the files 0600.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from nbllm.errors import ParameterError
from nbllm.store.files import own_data, own_folder, replace_file

if TYPE_CHECKING:
    from nbllm.config import Config

MAX_CHATS = 500
"""As many are kept; the one that has not grown for longest goes first."""
MAX_MESSAGES_BYTES = 64 << 20
MAX_BUNDLE_BYTES = 2 << 20
_MAX_FILES = 20_000
"""Looked at in the folder: one that holds more is not a folder of chats."""
_ID = r"[a-z0-9][a-z0-9-]{6,62}[a-z0-9]"
"""No dot and no capital: a name that leads nowhere else, and is another one on every file system. Windows keeps the
shorter ones, such as "con", for itself."""
_CHECKED_ID = re.compile(_ID)
_FILE_NAME = re.compile(rf"({_ID})\.(?:jsonl|bundle\.json)")
_UNFINISHED = ".chat-"
_UNFINISHED_S = 3600.0
"""A file that was not finished by then never will be."""


class _Bundle(msgspec.Struct, forbid_unknown_fields=True, rename={"markdown": "text/markdown", "plain": "text/plain"}):
    markdown: str
    plain: str


def folder(config: Config) -> Path:
    """Where the chats are; it need not exist yet."""
    return config.chats_dir


def new_id() -> str:
    """A name for a chat that nobody can guess: a notebook from elsewhere must not name one of this user's."""
    return f"{time.strftime('%Y%m%d')}-{secrets.token_hex(6)}"


def checked_id(chat_id: object) -> str:
    """The id as it is. Raises ParameterError when no chat can have it."""
    if not isinstance(chat_id, str) or not _CHECKED_ID.fullmatch(chat_id):
        raise ParameterError("chat", f"{chat_id!r:.80} is not the id of a chat; one looks like 20261122-0a1b2c3d4e5f")
    return chat_id


def read_messages(chat_id: str, place: Path) -> bytes | None:
    """The lines, None when there is no such chat. Raises ParameterError for an impossible id."""
    return own_data(_messages_path(chat_id, place), most_bytes=MAX_MESSAGES_BYTES) or None


def read_bundle(chat_id: object, place: Path) -> dict[str, str] | None:
    """What stands for the widget: `text/markdown` and `text/plain`. None when there is none that can be used.

    Never raises. Reads `MAX_BUNDLE_BYTES` at most.
    """
    try:
        data = own_data(_bundle_path(chat_id, place), most_bytes=MAX_BUNDLE_BYTES)
        bundle = msgspec.json.decode(data, type=_Bundle)
    except (ParameterError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return {"text/markdown": bundle.markdown, "text/plain": bundle.plain}


def write_messages(chat_id: str, lines: bytes, place: Path) -> None:
    """Replace the lines of a chat; a new one makes room for itself.

    Raises:
        ParameterError: the id or the folder cannot be used, or the chat is too large; it says what to do.
        OSError: it cannot be written.
    """
    path = _messages_path(chat_id, place)
    is_new = not path.exists()
    _write(path, lines, MAX_MESSAGES_BYTES)
    if is_new:
        prune(place)


def write_bundle(chat_id: str, bundle: Mapping[str, str], place: Path) -> None:
    """Replace what stands for the widget. Raises as `write_messages` does."""
    made = _Bundle(markdown=bundle["text/markdown"], plain=bundle["text/plain"])
    try:
        data = msgspec.json.encode(made)
    except UnicodeEncodeError as exc:
        raise ParameterError("chat", "half a surrogate pair in its text cannot be kept") from exc
    _write(_bundle_path(chat_id, place), data, MAX_BUNDLE_BYTES)


def prune(place: Path) -> None:
    """Remove all but the `MAX_CHATS` newest chats, and what was never finished. Never raises for what lies there."""
    changed: dict[str, float] = {}
    for path, changed_at in _files(place):
        match = _FILE_NAME.fullmatch(path.name)
        if match:
            changed[match[1]] = max(changed.get(match[1], 0.0), changed_at)
        elif path.name.startswith(_UNFINISHED) and time.time() - changed_at > _UNFINISHED_S:
            _remove(path)
    for chat_id in sorted(changed, key=changed.__getitem__, reverse=True)[MAX_CHATS:]:
        _remove(_messages_path(chat_id, place))
        _remove(_bundle_path(chat_id, place))


def _messages_path(chat_id: object, place: Path) -> Path:
    return place / f"{checked_id(chat_id)}.jsonl"


def _bundle_path(chat_id: object, place: Path) -> Path:
    return place / f"{checked_id(chat_id)}.bundle.json"


def _write(path: Path, data: bytes, most_bytes: int) -> None:
    if len(data) > most_bytes:
        problem = f"has {len(data):,} bytes and {most_bytes:,} can be kept; export it, and begin a new one"
        raise ParameterError("chat", problem)
    own_folder(path.parent, setting="chats_dir")
    replace_file(path, data, prefix=_UNFINISHED)


def _files(place: Path) -> list[tuple[Path, float]]:
    """The folder's files, and when they were changed, as far as they can be looked at."""
    found = []
    with suppress(OSError), os.scandir(place) as entries:
        for entry, _ in zip(entries, range(_MAX_FILES), strict=False):
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    found.append((place / entry.name, entry.stat(follow_symlinks=False).st_mtime))
    return found


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
