"""Who comes in under `/v1` and to Ollama's routes, and how those are refused who may not.

A key is checked here, before Jupyter's own identity provider is asked, and what it opens are these routes alone.
No route sets a cookie. Every refusal is JSON in the shape of the protocol, OpenAI's unless a route says otherwise: its
clients can read neither a login page nor Jupyter's error pages.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection
from functools import partial
from http.client import responses
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import User
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.utils import ensure_async
from tornado import web

from nbllm.errors import NbllmError
from nbllm.server.access import Access, notebook_access, require, too_many
from nbllm.server.apierror import ApiError
from nbllm.server.credentials import is_same_secret
from nbllm.server.failures import failure_of
from nbllm.server.origins import cors_headers, preflight
from nbllm.server.scopes import Scope

if TYPE_CHECKING:
    from nbllm.server.service import Service

_CODES = {405: "method_not_allowed"}  # of what Tornado refuses by itself
_SMALL_BYTES = 2**16


class Entrance(APIHandler):
    """What is decided before a route does its work.

    Attributes:
        scope: what a key needs for this route; None is open to everybody.
        challenge: the ways to send a key that a 401 names.
        kinds: what a body may be said to be; None is anything.
        is_refused: whatever the body is, it will not be used.
    """

    scope: Scope | None = "models"
    challenge = "Bearer"
    kinds: Collection[str] | None = (
        *("", "application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"),
    )
    is_refused = False
    _is_by_cookie = False
    _is_closing = False

    @property
    def service(self) -> Service:
        service: Service = self.settings["nbllm_service"]
        return service

    def initialize(self) -> None:
        """Not in `prepare`: a path that is not UTF-8 is refused before that, and logged all the same."""
        self.access = Access(status=401)

    async def prepare(self, **_: Any) -> None:
        if self.request.method == "OPTIONS":
            return
        if self.scope is None:
            self.access = Access()
        else:
            self.access = await self._checked_access(self.scope)
        try:
            self._refuse_unless(self.access)
            self._check_headers()
        except ApiError as refusal:
            self._refuse_after_the_body(refusal)

    def _refuse_after_the_body(self, refusal: ApiError) -> None:
        """To answer before the body has come closes the connection, which a client may take for a failure of the
        network; so that is for large bodies only. Raises `refusal` for these."""
        self.is_refused = True
        length = self.request.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.request.headers or not length.isdecimal() or int(length) > _SMALL_BYTES:
            self._is_closing = True
            raise refusal
        setattr(self, (self.request.method or "get").lower(), partial(_raise, refusal))  # what is called after the body

    async def _checked_access(self, scope: Scope) -> Access:
        headers, address = self.request.headers, self.request.remote_ip or ""
        access = self.service.guard.check(headers, address)
        query_token = self.get_query_argument("token", "")
        if query_token and is_same_secret(query_token, str(self.identity_provider.token)):
            access = notebook_access()
        if require(access, scope).status in (401, 503):  # 503: keys cannot be checked, the hub's tokens can
            access = await self._jupyter_access() or access
        if access.cause:
            self.log.error("nbllm: %s", access.cause)
        self.current_user = self._jupyter_current_user = User(access.name)
        self._token_authenticated = True  # Jupyter's own checks are done, or were not needed
        return self.service.guard.settled(require(access, scope), address)

    async def _jupyter_access(self) -> Access | None:
        """Whoever the notebook server itself knows: a session of its own pages, with XSRF, or a user of the hub."""
        if "Cookie" not in self.request.headers and not self._identities_are_elsewhere:
            return None
        try:
            await JupyterHandler.prepare(self)
            self.check_xsrf_cookie()  # Jupyter checks it for other methods than GET only
            user = self.current_user
            is_known = user is not None and await _is_authorized(self, user)
        except web.HTTPError:
            return None
        if not is_known:
            return None
        self._is_by_cookie = True
        self.clear_header("Access-Control-Allow-Origin")
        return notebook_access()

    @property
    def _identities_are_elsewhere(self) -> bool:
        """Under JupyterHub the hub knows the tokens."""
        return type(self.identity_provider).__module__.partition(".")[0] != "jupyter_server"

    def _refuse_unless(self, access: Access) -> None:
        if not access.granted:
            self.access = access
            raise ApiError(access.status, access.message, code=access.code, retry_after_s=access.retry_after_s or None)

    def check_model(self, *names: str) -> None:
        """Raises ApiError when the key does not open a model of these names."""
        assert self.scope is not None
        self._refuse_unless(require(self.access, self.scope, *names))

    def take_slot(self) -> Any:
        """One of the requests that the key allows at a time. Raises ApiError when it has no more."""
        lease = self.service.slots.acquire(self.access.key)
        if lease is None:
            assert self.access.key is not None
            self._refuse_unless(too_many(self.access.key))
        return lease

    def set_cookie(self, *_: object, **__: object) -> None:
        """No answer under `/v1` sets one, whoever asks for it; Tornado's other ways to set one all come here."""

    def _check_headers(self) -> None:
        if self.request.method in ("GET", "HEAD"):
            return
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if self.kinds is not None and kind not in self.kinds:
            raise ApiError(
                415, f"The body is said to be {kind[:80]!r}; send it as application/json", code="unsupported_media_type"
            )
        if self.request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ApiError(415, "Send the body without a Content-Encoding", code="unsupported_media_type")
        length = self.request.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) > self.max_body_bytes:
            raise self.too_large()

    @property
    def max_body_bytes(self) -> int:
        return self.service.limits.max_body_bytes

    def too_large(self) -> ApiError:
        return ApiError(
            413, f"The body is larger than {self.max_body_bytes:,} bytes, the most that is taken", code="body_too_large"
        )

    # ---- pages of other origins

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("x-request-id", uuid.uuid4().hex)
        self.set_header("Cache-Control", "no-store")
        if not self._is_by_cookie:
            for name, value in cors_headers(self.request.headers.get("Origin"), self._origins).items():
                self.set_header(name, value)

    def set_cors_headers(self) -> None:
        """Jupyter's are for its own pages; ours are set from the start."""

    @property
    def _origins(self) -> Any:
        return self.service.guard.policy.origins

    @allow_unauthenticated
    def options(self, *_: object) -> None:
        """A browser asks first whether a page of another origin may ask at all."""
        headers = self.request.headers
        answer = preflight(
            headers.get("Origin"),
            headers.get("Access-Control-Request-Headers"),
            self._origins,
            wants_private_network=headers.get("Access-Control-Request-Private-Network") == "true",
        )
        for name, value in answer.items():
            self.set_header(name, value)
        self.set_status(204)

    # ---- refusals

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        failure = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(failure, NbllmError):
            failure = ApiError.of(failure)
            self.set_status(failure.status_code)
        if not isinstance(failure, ApiError):
            failure = ApiError(status_code, _reason(failure, status_code), code=_CODES.get(status_code))
            self._is_closing = True  # Tornado refuses before the body has come, and so closes the connection
        if failure.retry_after_s is not None:
            self.set_header("Retry-After", str(max(1, math.ceil(failure.retry_after_s))))
        if failure.status_code == 401:
            self.set_header("WWW-Authenticate", self.challenge)
        if self._is_closing:
            self.set_header("Connection", "close")
        self.finish(self.told(failure))

    def told(self, failure: ApiError) -> dict[str, Any]:
        """The body of a refusal."""
        return failure.body

    def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
        """What the client was told, and can correct, needs no traceback: the access line has its status."""
        failure = failure_of(error) if error is not None else None
        status = error.status_code if isinstance(error, ApiError) else failure.status if failure else 500
        if status == 500:
            super().log_exception(kind, error, trace)


def _raise(error: ApiError, *_: object) -> None:
    raise error


async def _is_authorized(handler: Entrance, user: User) -> bool:
    return bool(await ensure_async(handler.authorizer.is_authorized(handler, user, "execute", "nbllm")))


def _reason(failure: BaseException | None, status: int) -> str:
    """What may be told: Jupyter's and Tornado's refusals, but nothing of an unexpected exception."""
    if isinstance(failure, web.HTTPError):
        reason = failure.reason or responses.get(failure.status_code, "Unknown error")
        return failure.log_message % failure.args if failure.log_message else reason
    return "Internal error; the notebook server's log has the details" if status >= 500 else responses.get(status, "")
