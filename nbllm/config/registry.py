"""Where models come from that are asked for by a short name which the shipped table does not have."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from nbllm.config.endpoints import checked_base_url
from nbllm.errors import ParameterError

REGISTRY = "https://registry.ollama.ai"
_OFF = ("", "none")
_EXAMPLE = f'write for example "{REGISTRY}", or "none"'


def registry(name: str, value: object) -> str:
    """The address, "" where none is to be asked. Raises ParameterError."""
    if isinstance(value, str) and value.strip().casefold() in _OFF:
        return ""
    address = checked_base_url(name, value, example=_EXAMPLE)
    if not is_secure(address):
        raise ParameterError(name, f"http is for this machine alone, not for {address!r:.100}: use https; {_EXAMPLE}")
    return address


def is_secure(address: str) -> bool:
    """Whether nobody between can change what comes from there: https, or http that stays on this machine."""
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
