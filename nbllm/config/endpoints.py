"""Other OpenAI-compatible servers, as the settings name them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from urllib.parse import urlsplit

from nbllm.core import unknown_option
from nbllm.errors import ParameterError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LITERAL_KEYS = ("api_key", "key", "token", "password", "authorization")
_MOST_IN_A_NAME = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One model on another server.

    Attributes:
        base_url: up to and including /v1, without a slash at the end.
        model: the server's name for it; None is the only one that it has.
        api_key_env: the environment variable that holds the key, None when the server wants none.
    """

    base_url: str
    model: str | None = None
    api_key_env: str | None = field(default=None)

    def api_key(self) -> str | None:
        """The key. Raises ParameterError, naming the variable, when it is not set."""
        if self.api_key_env is None:
            return None
        key = key_in_environment(self.api_key_env)
        if key is None:
            raise ParameterError(self.api_key_env, f"is not set; it has to hold the key for {self.base_url}")
        return key


def key_in_environment(variable: str) -> str | None:
    """The API key that the variable holds, None when it is empty or not set."""
    return os.environ.get(variable, "").strip() or None


def checked_base_url(name: str, value: object, *, example: str = 'write for example "http://localhost:8000/v1"') -> str:
    """An address that requests may go to, without a slash at its end.

    Args:
        example: what a message says at its end.

    Raises:
        ParameterError: it is no http or https address, or holds a password, a query or a fragment.
    """
    if not isinstance(value, str) or not value.strip():
        raise ParameterError(name, f"must be a server's address, not {value!r:.100}; {example}")
    text = value.strip()
    try:
        parts = urlsplit(text)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        raise ParameterError(name, f"is not an address; {example}") from None  # its text may hold a password
    if "@" in parts.netloc:
        raise ParameterError(name, "must not hold a name or password; give the key as a key")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_right:
        raise ParameterError(name, f"{text!r:.100} is not an http or https address; {example}")
    if parts.query or parts.fragment or any(ord(character) <= 32 or ord(character) == 127 for character in text):
        raise ParameterError(name, f"must not hold a query, a fragment or white space; {example}")
    return text.rstrip("/")


def endpoints(name: str, value: object) -> Mapping[str, Endpoint]:
    """The table of endpoints, checked. No message ever repeats a value in it that may be a key."""
    if not isinstance(value, Mapping):
        raise ParameterError(name, f"must be a table, [{name}.some-name] with base_url, not {type(value).__name__}")
    return {_checked_label(name, label): _endpoint(f"{name}.{label}", entry) for label, entry in value.items()}


def _checked_label(name: str, label: object) -> str:
    if not isinstance(label, str) or not label.strip() or label != label.strip() or len(label) > _MOST_IN_A_NAME:
        raise ParameterError(name, f"{label!r:.100} is not a name")
    return label


def _endpoint(name: str, entry: object) -> Endpoint:
    if isinstance(entry, Endpoint):
        return entry
    if not isinstance(entry, Mapping):
        raise ParameterError(name, f"must be a table with base_url, not {type(entry).__name__}")
    known = [spec.name for spec in fields(Endpoint)]
    for key in entry:
        if str(key).casefold() in _LITERAL_KEYS:
            advice = "a key does not belong into a file: put it into an environment variable, and name that here as"
            raise ParameterError(f"{name}.{key}", f"{advice} api_key_env")
        if key not in known:
            raise ParameterError(f"{name}.{key}", unknown_option(key, known))
    if "base_url" not in entry:
        raise ParameterError(name, "needs base_url, the server's address up to /v1")
    return Endpoint(
        base_url=checked_base_url(f"{name}.base_url", entry["base_url"]),
        model=_optional_text(f"{name}.model", entry.get("model")),
        api_key_env=_optional_variable(f"{name}.api_key_env", entry.get("api_key_env")),
    )


def _optional_text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ParameterError(name, f"must be a model's name, not {value!r:.100}")
    return value.strip()


def _optional_variable(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ParameterError(name, "must be the name of an environment variable that holds the key, not the key")
    return value
