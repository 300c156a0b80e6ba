"""Ollama's own variables, for a server that takes its place: where to listen, and a password."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from nbllm.errors import ParameterError

OLLAMA_PORT = 11434
_HOST = re.compile(
    r"(?:(https?)://)?(?:\[([0-9A-Fa-f:.]+)\]|([^\s/:\[\]]*))(?::([0-9]{1,5}))?(?:/.*)?", re.IGNORECASE | re.ASCII
)
_SCHEME_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65_535


class ListenAt(NamedTuple):
    """Where to listen, as Ollama reads it: a host without a port is at 11434, a URL without one at its scheme's."""

    ip: str
    port: int


def ollama_host() -> ListenAt | None:
    """What OLLAMA_HOST says: "0.0.0.0", ":11434", "host:port", "http://host:port"; None without it.

    Raises:
        ParameterError: it is none of these.
    """
    text = os.environ.get("OLLAMA_HOST", "").strip(" \t\"'")
    if not text:
        return None
    match = _HOST.fullmatch(text)
    port = None if match is None else int(match[4] or _SCHEME_PORTS.get((match[1] or "").lower(), OLLAMA_PORT))
    if match is None or port is None or port > _MAX_PORT:
        raise ParameterError("OLLAMA_HOST", f'must be an address such as "0.0.0.0:{OLLAMA_PORT}", not {text!r:.80}')
    return ListenAt(match[2] or match[3] or "127.0.0.1", port)


def ollama_password() -> str | None:
    """What OLLAMA_BASIC_AUTH says, "user:password"; None without it.

    Raises:
        ParameterError: a part is missing.
    """
    text = os.environ.get("OLLAMA_BASIC_AUTH", "")
    if not text:
        return None
    user, _, password = text.partition(":")
    if not user or not password:  # the value is secret, so that it is not quoted
        raise ParameterError("OLLAMA_BASIC_AUTH", "must be user:password, and neither of them empty")
    return text
