"""What a model is made of, and where its adapters are: names, files, blobs.

A text that came over the network names no files. Nothing is opened here.
"""

from __future__ import annotations

import re
from pathlib import Path

from nbllm.errors import InvalidRequestError
from nbllm.store.blobs import is_digest
from nbllm.store.header import shown

_MAX_LENGTH = 4096
_PATH = re.compile(r"[./\\~]|[A-Za-z]:[/\\]")
"""How a path begins that can be no name."""
_DIGEST_PREFIX = "sha256:"


def base(text: str, folder: Path | None) -> str:
    """A model's name, an absolute path, or a blob's digest.

    Args:
        folder: what a relative path starts from; None where paths are not allowed.

    Raises:
        InvalidRequestError: it is none of them.
    """
    place = _checked(text, "a model's name")
    if is_digest(place) or not (_PATH.match(place) or _is_file_there(place, folder)):
        return place
    if folder is None:
        raise InvalidRequestError(f"{shown(place)} is a path, which is not taken from here; give the name of a model")
    return _absolute(place, folder)


def adapter(text: str, folder: Path | None) -> str:
    """An absolute path, or a blob's digest. The arguments are those of `base`."""
    place = _checked(text, "the path of a LoRA file")
    if is_digest(place):
        return place
    if folder is None:
        raise InvalidRequestError(f"{shown(place)} is a path, which is not taken from here; give a blob: sha256:...")
    return _absolute(place, folder)


def _checked(text: str, what: str) -> str:
    place = text.strip()
    if not place:
        raise InvalidRequestError(f"is empty; give {what}")
    if not place.isprintable():
        raise InvalidRequestError(f"{shown(place)} has a character that cannot be printed; give {what}")
    if len(place) > _MAX_LENGTH:
        raise InvalidRequestError(f"has {len(place):,} characters; give {what}")
    if place.startswith(_DIGEST_PREFIX) and not is_digest(place):
        raise InvalidRequestError(f"{shown(place)} is no blob: sha256: is followed by 64 lower-case hex digits")
    return place


def _is_file_there(place: str, folder: Path | None) -> bool:
    """Ollama's users write FROM model.gguf for a file beside the Modelfile."""
    if folder is None or not place.casefold().endswith(".gguf"):
        return False
    try:
        return (folder / place).is_file()
    except OSError:
        return False


def _absolute(place: str, folder: Path) -> str:
    try:
        return str((folder / Path(place).expanduser()).absolute())
    except RuntimeError as exc:
        raise InvalidRequestError(f"{shown(place)} starts with the home folder of nobody known") from exc
