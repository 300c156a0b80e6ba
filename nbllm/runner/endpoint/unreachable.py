"""Why a server cannot be reached, and what to do about it."""

from __future__ import annotations

import socket
import ssl
from typing import TypeVar
from urllib.parse import urlsplit

from nbllm.wire.outgoing.refusals import one_line

_Error = TypeVar("_Error", bound=BaseException)
_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


def never_arrived(exc: BaseException | None) -> bool:
    """Whether no connection came about, so that nothing was asked."""
    import httpx

    return isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)


def is_lasting(exc: BaseException) -> bool:
    """Whether a connection fails for a reason that stays: an untrusted certificate, a name that nobody has."""
    return _caused_by(exc, ssl.SSLCertVerificationError) is not None or _is_no_name(_caused_by(exc, socket.gaierror))


def problem(exc: BaseException, url: str, *, connect_s: float, secret: str | None) -> str:
    """A line for a person.

    Args:
        connect_s: how long a connection was waited for.
        secret: is not repeated.
    """
    import httpx

    nameless, host = _caused_by(exc, socket.gaierror), urlsplit(url).hostname
    if _is_no_name(nameless):
        return f"there is no host {host!r}: check the address {url}"
    if nameless is not None:
        return f"the host {host!r} was not found ({nameless.strerror}): check the network, and the address {url}"
    if isinstance(exc, httpx.ConnectTimeout):
        return f"nothing answered at {url} within {connect_s:g} s: check host and port, and the network between"
    if _caused_by(exc, ConnectionRefusedError) is not None:
        return f"nothing answers at {url}: start the server there, or check host and port"
    reason = one_line(str(exc), secret) or type(exc).__name__
    return f"the connection to {url} failed: {reason}; check the address, or ask again"


def _is_no_name(error: socket.gaierror | None) -> bool:
    return error is not None and error.errno in _NO_SUCH_NAME


def _caused_by(exc: BaseException | None, kind: type[_Error]) -> _Error | None:
    """The first of a kind among an exception and what it came from."""
    while exc is not None and not isinstance(exc, kind):
        exc = exc.__cause__ or exc.__context__
    return exc
