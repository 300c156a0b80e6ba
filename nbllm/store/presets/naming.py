"""What a preset may be called, and the name of its file."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from nbllm.errors import ParameterError
from nbllm.store.header import shown

MAX_NAME_LENGTH = 200
SUFFIX = ".toml"
_MAX_FILE_NAME = 255
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_USUAL_TAG = ":latest"


def preset_name(text: object) -> str:
    """The name as it is kept: without the tag that Ollama's clients add.

    Raises:
        ParameterError: it cannot be one.
    """
    if not isinstance(text, str):
        raise ParameterError("name", f"must be a text, not {type(text).__name__}")
    name = text.removesuffix(_USUAL_TAG)
    if len(name) > MAX_NAME_LENGTH:
        raise ParameterError("name", f"has {len(name):,} characters; {MAX_NAME_LENGTH} are the most")
    has_empty_part = "" in re.split("[:/]", name)
    if not _NAME.fullmatch(name) or has_empty_part or ".." in name:
        allowed = "write letters, digits and . _ - in one or more parts: mario, my/mario:7b"
        raise ParameterError("name", f"{shown(text)!r:.320} is none for a preset; {allowed}")
    if len(file_name(name)) > _MAX_FILE_NAME:
        raise ParameterError("name", f"{shown(text)!r} is too long for a file's name; make it shorter")
    return name


def file_name(name: str) -> str:
    """Of a name that was checked."""
    return quote(name, safe="") + SUFFIX


def named_by(file: str) -> str:
    """The name of the preset in the file of that name. Raises ParameterError if it cannot be one."""
    return preset_name(unquote(file.removesuffix(SUFFIX)))


def folded(name: str) -> str:
    """What two names have in common that mean the same preset."""
    return name.casefold().removesuffix(_USUAL_TAG)
