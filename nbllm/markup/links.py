"""Which addresses a link may have, and in which spelling every parser reads them alike."""

from __future__ import annotations

import html
import re
from urllib.parse import quote

_MAX_LENGTH = 2000
_WEB = re.compile(r"(https?)://([\w.-]+(?::\d{1,5})?)((?:[/?#]\S*)?)", re.IGNORECASE)
_MAIL = re.compile(r"mailto:([A-Za-z0-9.+_-]+@[\w.-]+)((?:\?\S*)?)", re.IGNORECASE)
_BACKSLASH_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
# `$`, `@@` and quotes are no danger to a parser, but JupyterLab puts maths back into the HTML it made, attributes
# included; brackets, `*` and `|` keep parsers from seeing the end of the address at another place.
_UNUSUAL = re.compile(r"[^\w\-.~/?#=%+,;:!&]|%(?![0-9A-Fa-f]{2})")


def safe_url(address: str) -> str | None:
    """The http, https or mailto address as it can stand between `(` and `)`, or None for any other."""
    if len(address) > _MAX_LENGTH:
        return None
    address = _BACKSLASH_ESCAPE.sub(r"\1", html.unescape(address))
    if match := _WEB.fullmatch(address):
        scheme, host, rest = match.groups()
        return f"{scheme.lower()}://{host}{_encoded(rest)}"
    if match := _MAIL.fullmatch(address):
        return f"mailto:{match[1]}{_encoded(match[2])}"
    return None


def _encoded(rest: str) -> str:
    return _UNUSUAL.sub(lambda match: quote(match[0], safe=""), rest).replace("&", "&amp;")
