"""From a request's headers to the secret that it presents.

Headers are a stranger's text: whatever they hold, the answer is a value and never an exception.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest

MAX_LENGTH = 4096
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_AUTHORIZATION = re.compile(r"(bearer|token|basic)(?:[ \t]+(.*))?", re.IGNORECASE | re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Presented:
    """What came: a secret, nothing, or something that no key can be."""

    secret: str | None = field(default=None, repr=False)
    is_malformed: bool = False


NOTHING = Presented()
MALFORMED = Presented(is_malformed=True)


def presented(headers: Mapping[str, str]) -> Presented:
    """The secret in `Authorization: Bearer`, else in `X-Api-Key`, else in `Authorization: Basic`.

    Basic comes last, as a proxy in front may want it for itself while the key travels in `X-Api-Key`. Its secret is
    the password, or the user where there is no password. An empty one counts as none.
    """
    scheme, value = _authorization(headers.get("Authorization"))
    key = (headers.get("X-Api-Key") or "").strip(" \t")
    if scheme in ("bearer", "token") and value:
        return _checked(value)
    if key:
        return _checked(key)
    return _basic(value) if scheme == "basic" and value else NOTHING


def basic_pair(headers: Mapping[str, str]) -> str | None:
    """The "user:password" of `Authorization: Basic`; None where there is no such thing."""
    scheme, value = _authorization(headers.get("Authorization"))
    return _decoded(value) if scheme == "basic" else None


def is_same_secret(presented: str | None, expected: str) -> bool:
    """Compare in constant time. Nothing equals an empty `expected`: a server without a token has none to present."""
    if presented is None or not expected:
        return False
    return compare_digest(_digest(presented), _digest(expected))  # digests: their length tells nothing


def _authorization(header: str | None) -> tuple[str, str]:
    match = _AUTHORIZATION.fullmatch((header or "").strip(" \t"))
    return (match[1].lower(), (match[2] or "").strip(" \t")) if match else ("", "")


def _checked(secret: str) -> Presented:
    if len(secret) > MAX_LENGTH or not _VISIBLE.fullmatch(secret):
        return MALFORMED
    return Presented(secret)


def _basic(value: str) -> Presented:
    pair = _decoded(value)
    if pair is None:
        return MALFORMED
    user, _, password = pair.partition(":")
    secret = password or user
    return _checked(secret) if secret else NOTHING


def _decoded(value: str) -> str | None:
    if len(value) > 2 * MAX_LENGTH:
        return None
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):  # ValueError: not ASCII outside, or not UTF-8 inside
        return None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
