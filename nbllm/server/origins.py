"""Which web pages may use this server from a browser, and which names in `Host` are this machine.

A page of a listed origin gets the CORS headers without which its browser hides the answer. Cookies are never
allowed to travel along: a page brings a key, or needs none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from nbllm.errors import ParameterError

_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]{0,31})://([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::(0|[1-9][0-9]{0,4}|\*))?"
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_MAX_FIELDS = 64
_MAX_LENGTH = 4096
_ORIGIN_DEPENDS = {"Vary": "Origin"}  # so that a cache keeps one answer for each page


class _Place(NamedTuple):
    scheme: str
    host: str
    port: str  # "*" in a pattern: any


@dataclass(frozen=True, slots=True)
class AllowedOrigins:
    """The pages that may. "*" lists every page with an address; "null", which stands for pages without one, as files
    and sandboxed frames are, counts only where it is listed itself."""

    places: frozenset[_Place] = frozenset()
    is_any: bool = False
    is_null: bool = False

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> AllowedOrigins:
        """From `https://app.example`, `http://localhost:3000`, `http://localhost:*` (any port), `*` and `null`.

        Raises:
            ParameterError: a pattern is none of these.
        """
        listed = {pattern.strip().lower().removesuffix("/") for pattern in patterns}
        places = frozenset(_pattern(text) for text in listed - {"*", "null"})
        return cls(places, "*" in listed, "null" in listed)

    def allows(self, origin: str) -> bool:
        if origin == "null":
            return self.is_null
        place = _place(origin.lower()) if origin.isascii() else None  # lower() makes ASCII of some other letters
        if place is None or place.port == "*":
            return False
        return self.is_any or place in self.places or place._replace(port="*") in self.places


def cors_headers(origin: str | None, allowed: AllowedOrigins) -> dict[str, str]:
    """For an answer, errors too. Not for a request let in by a cookie: that is never another page's business."""
    if origin is None or not allowed.allows(origin):
        return dict(_ORIGIN_DEPENDS)
    return _ORIGIN_DEPENDS | {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "Retry-After, x-request-id",
    }


def preflight(
    origin: str | None,
    requested_headers: str | None,
    allowed: AllowedOrigins,
    *,
    wants_private_network: bool = False,
) -> dict[str, str]:
    """For the answer (204, no body) to a browser's question whether the page may send a request.

    The headers asked about are allowed by name, as OpenAI's client adds ever new ones (`x-stainless-…`).

    Args:
        requested_headers: `Access-Control-Request-Headers`.
        wants_private_network: `Access-Control-Request-Private-Network` is "true": a public page asks for this machine.
    """
    vary = {"Vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network"}
    if origin is None or not allowed.allows(origin):
        return vary
    answer = vary | {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        "Access-Control-Max-Age": "600",
    }
    if names := _field_names(requested_headers):
        answer["Access-Control-Allow-Headers"] = ", ".join(names)
    if wants_private_network:
        answer["Access-Control-Allow-Private-Network"] = "true"
    return answer


def is_loopback_host(host: str | None) -> bool:
    """Whether a `Host` header names this machine in a way that no name server decides.

    A page whose name was made to lead here (DNS rebinding) says its own name in `Host`.
    """
    match = _HOST.fullmatch(host or "")
    if match is None:
        return False
    name = match[1].lower()
    if name.startswith("["):
        return _is_ipv6_loopback(name[1:-1])
    name = name.removesuffix(".")
    return name == "localhost" or _is_ipv4_loopback(name)


def is_loopback_address(address: str) -> bool:
    """Whether an address to listen on, or a client's, is of this machine alone; "" is all addresses."""
    if address.lower() == "localhost":
        return True
    mapped = address.lower().removeprefix("::ffff:")
    return _is_ipv4_loopback(mapped) or _is_ipv6_loopback(address)


def _is_ipv4_loopback(text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text).is_loopback
    except ValueError:
        return False


def _is_ipv6_loopback(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text) == ipaddress.IPv6Address("::1")
    except ValueError:
        return False


def _pattern(text: str) -> _Place:
    place = _place(text)
    if place is None:
        raise ParameterError(
            "allow_origins",
            f'must hold origins such as "http://localhost:*" or "https://app.example", or "*", not {text[:100]!r}',
        )
    return place


def _place(text: str) -> _Place | None:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match.groups()
    if port not in (None, "*") and int(port) > 65535:
        return None
    return _Place(scheme, host, port or _DEFAULT_PORTS.get(scheme, ""))


def _field_names(header: str | None) -> list[str]:
    if not header or len(header) > _MAX_LENGTH:
        return []
    names = [name.strip(" \t") for name in header.split(",")]
    return [name for name in names if _FIELD_NAME.fullmatch(name)][:_MAX_FIELDS]
