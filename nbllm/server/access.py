"""Who may do what under `/v1`: the decision, apart from any handler.

access = guard.check(headers, address)        a key, the notebook's token, or nobody
access = require(access, "chat", model)       what this request needs
access = guard.settled(access, address)       a wrong key too many becomes a 429
lease = slots.acquire(access.key)             None: answer with too_many(access.key)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nbllm.errors import ParameterError
from nbllm.server.attempts import Attempts
from nbllm.server.credentials import Presented, basic_pair, is_same_secret, presented
from nbllm.server.keyfile import KeyFileError
from nbllm.server.keys import Key, KeyStore, Verdict
from nbllm.server.origins import AllowedOrigins, is_loopback_address, is_loopback_host
from nbllm.server.scopes import ALL_SCOPES, USUAL_SCOPES, Scope

_FORWARDING = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")
_REPAIR_S = 30
"""What a client is told to wait while the keys file is damaged."""
_OPEN_SCOPES: frozenset[Scope] = frozenset(USUAL_SCOPES)
_NO_KEYS_SCOPES: frozenset[Scope] = _OPEN_SCOPES | {"manage"}
_PASSWORD_SCOPES: frozenset[Scope] = ALL_SCOPES - {"kernel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How this server is run.

    Args:
        is_open: those without a key may use models and list them, from this machine and from pages of `origins`.
        is_managed_openly: and may change which models there are.
        is_alone: there is no notebook server, whose token its user would know.
    """

    origins: AllowedOrigins
    is_open: bool = False
    is_managed_openly: bool = False
    is_alone: bool = False

    @property
    def open_scopes(self) -> frozenset[Scope]:
        """What those may do who have no key."""
        return _NO_KEYS_SCOPES if self.is_managed_openly else _OPEN_SCOPES

    @property
    def advice(self) -> str:
        """What to do without a key that works."""
        token = "" if self.is_alone else "Jupyter's token or "
        return f"send the header 'Authorization: Bearer KEY' with {token}a key of  jupyter nbllm keys create"


_NO_KEYS = "or have the server started with --no-keys"


def policy_for(
    bind: str,
    *,
    origins: AllowedOrigins,
    is_alone: bool,
    is_under_hub: bool,
    has_keys: bool,
    has_password: bool = False,
    no_keys: bool = False,
) -> Policy:
    """The policy of a server that listens on `bind` (Jupyter's `ServerApp.ip`; "" is every address).

    Args:
        is_alone: run as `jupyter nbllm`, and not as a part of a notebook server.
        has_keys: there is at least one key.
        has_password: its owner wants everybody to send a password (OLLAMA_BASIC_AUTH), or a key.
        no_keys: its owner wants whoever uses this machine to manage models too.

    Raises:
        ParameterError: run alone, it would listen to other machines and have no key for anybody; or it would ask for
            keys, and its owner wants none.
    """
    if no_keys and (not is_alone or is_under_hub or has_password or not is_loopback_address(bind)):
        raise ParameterError(
            "--no-keys", "goes with  jupyter nbllm  on 127.0.0.1 and without OLLAMA_BASIC_AUTH only: leave it out"
        )
    if not is_alone or is_under_hub or has_password:
        return Policy(origins=origins, is_alone=is_alone)
    if is_loopback_address(bind):
        return Policy(origins=origins, is_open=True, is_managed_openly=no_keys, is_alone=True)
    if not has_keys:
        raise ParameterError(
            "ip",
            f"{bind or '0.0.0.0'} lets other machines in, and there is no key: make one with  "
            "jupyter nbllm keys create NAME  or leave --ip out",
        )
    return Policy(origins=origins, is_alone=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What was decided of one request.

    Args:
        status: 200, or the refusal's; `message` and `code` are for its body.
        retry_after_s: for the header `Retry-After` of a 429; 0 is none.
        name: for the access log.
        is_guess: a secret was presented that is no key's; where that leads to a 401, it counts against the address.
        cause: for the server's log only, as it names files.
        about_key: granted without a key although one was presented, that is wrong for this reason.
        advice: what to do where this does not suffice.
    """

    status: int = 200
    message: str = ""
    code: str | None = None
    retry_after_s: int = 0
    key: Key | None = None
    name: str = "-"
    scopes: frozenset[Scope] = frozenset()
    is_guess: bool = False
    cause: str = ""
    about_key: str = ""
    advice: str = ""

    @property
    def granted(self) -> bool:
        return self.status == 200

    def may_use(self, *names: str) -> bool:
        """Whether the model with these names is one that the key opens, as far as its list says."""
        return self.key is None or self.key.models is None or not set(names).isdisjoint(self.key.models)


def notebook_access(name: str = "notebook") -> Access:
    """For whoever the notebook server itself lets in: who has its token may run any code, so this too."""
    return Access(name=name, scopes=ALL_SCOPES)


def decide(
    policy: Policy,
    credentials: Presented,
    verdict: Verdict,
    *,
    address: str,
    host: str | None,
    origin: str | None,
    is_forwarded: bool = False,
    is_jupyter_token: bool = False,
) -> Access:
    """Who this is. Whoever has a key or the token is let in from anywhere: a page in another's browser has neither.

    On an open server a wrong key is no key: clients that insist on one are given any text.

    Args:
        verdict: on `credentials`, from KeyStore.verify.
        address: the client's.
        is_forwarded: a proxy on this machine, or a tunnel, says that it speaks for somebody else.
    """
    if is_jupyter_token:
        return notebook_access()
    if verdict.key is not None:
        return Access(key=verdict.key, name=verdict.key.name, scopes=frozenset(verdict.key.scopes))
    problem = "it has characters that no key has, or is too long" if credentials.is_malformed else verdict.problem
    is_guess = credentials.secret is not None
    if not policy.is_open or is_forwarded or not is_loopback_address(address):
        return _unknown(problem, is_guess, policy.advice)
    if not is_loopback_host(host):
        return Access(
            status=403,
            message="Without a key, this server is there under the names localhost and 127.0.0.1 only; use one of "
            f"them, or {policy.advice}",
            code="host_not_allowed",
        )
    if origin is not None and not policy.origins.allows(origin):
        return Access(
            status=403,
            message=f"Pages of {origin[:100]!r} may not use this server: add it to allow_origins, or {policy.advice}",
            code="origin_not_allowed",
        )
    return Access(
        name="anonymous", scopes=policy.open_scopes, about_key=problem, is_guess=is_guess, advice=policy.advice
    )


def require(access: Access, scope: Scope, *models: str) -> Access:
    """The same access, or the refusal of what it does not include.

    Args:
        models: the names of the one model, as it was asked for and as that resolved; none where no model is used.
    """
    if not access.granted:
        return access
    if scope not in access.scopes:
        return _out_of_scope(access, scope)
    if models and not access.may_use(*models):
        opened = ", ".join((access.key and access.key.models) or ())
        return _refused(
            access,
            f"The key {access.name!r} does not open the model {models[0][:100]!r}; it opens {opened[:300]}",
            "model_not_allowed",
        )
    return access


def too_many(key: Key) -> Access:
    """The refusal of a request beyond `max_concurrent`."""
    return Access(
        status=429,
        message=f"The key {key.name!r} allows {key.max_concurrent} at a time; wait until one has ended",
        code="rate_limit_exceeded",
        retry_after_s=1,
        key=key,
        name=key.name,
    )


class Guard:
    """The decision with everything that it needs to know, for the handlers.

    Args:
        notebook_token: called for each request, as the notebook server may get another one; "" is none.
        password: "user:password" that opens what a key with all scopes but `kernel` does; None is none.
    """

    def __init__(
        self,
        policy: Policy,
        keys: KeyStore,
        *,
        notebook_token: Callable[[], str],
        attempts: Attempts | None = None,
        password: str | None = None,
    ) -> None:
        self.policy = policy
        self._password = password or ""
        self._keys = keys
        self._notebook_token = notebook_token
        self._attempts = Attempts() if attempts is None else attempts
        self._cause = ""

    def check(self, headers: Mapping[str, str], address: str) -> Access:
        """Decide; nothing is counted yet, since the notebook server may know who this is (its cookie, its hub)."""
        if is_same_secret(basic_pair(headers), self._password):
            return Access(name="password", scopes=_PASSWORD_SCOPES)
        credentials = presented(headers)
        is_token = is_same_secret(credentials.secret, self._notebook_token())
        verdict: Verdict = Verdict()
        cause: str | None = None
        if credentials.secret is not None and not is_token:  # the token works also when the keys file does not
            verdict, cause = self._verdict(credentials.secret)
        access = decide(
            self.policy,
            credentials,
            verdict,
            address=address,
            host=headers.get("Host"),
            origin=headers.get("Origin"),
            is_forwarded=any(name in headers for name in _FORWARDING),
            is_jupyter_token=is_token,
        )
        if cause is None:
            return access
        return replace(_keys_unusable() if access.status == 401 else access, cause=self._news(cause))

    def _verdict(self, secret: str) -> tuple[Verdict, str | None]:
        """With why keys cannot be checked; None if they can."""
        try:
            verdict = self._keys.verify(secret)
        except KeyFileError as exc:
            return Verdict(), str(exc)
        self._cause = ""
        return verdict, None

    def _news(self, cause: str) -> str:
        """Only once, or a client that polls would fill the log."""
        is_known, self._cause = cause == self._cause, cause
        return "" if is_known else cause

    def settled(self, access: Access, address: str) -> Access:
        """Count a wrong key against the address it came from. Call it once a request, with what is going to be said."""
        if access.status != 401 or not access.is_guess:
            return access
        wait_s = self._attempts.charge(address)
        if not wait_s:
            return access
        return replace(
            access,
            status=429,
            message=f"Too many wrong keys from {address}: {access.message}",
            code="rate_limit_exceeded",
            retry_after_s=math.ceil(wait_s),
        )


def _unknown(problem: str, is_guess: bool, advice: str) -> Access:
    opening = f"This key opens nothing: {problem}" if problem else "This server needs a key"
    return Access(status=401, message=f"{opening}; {advice}", code="invalid_api_key", is_guess=is_guess)


def _out_of_scope(access: Access, scope: Scope) -> Access:
    if access.key is None:
        how = f"{access.advice} NAME --scopes {scope}"
        return _unknown(access.about_key, access.is_guess, f"{how}, {_NO_KEYS}" if scope == "manage" else how)
    return _refused(
        access,
        f"The key {access.name!r} is for {', '.join(access.key.scopes)}, and this needs the scope {scope}: make a key "
        f"with  jupyter nbllm keys create NAME --scopes {scope}",
        "insufficient_scope",
    )


def _refused(access: Access, message: str, code: str) -> Access:
    return replace(access, status=403, message=message, code=code)


def _keys_unusable() -> Access:
    message = "The server cannot check keys; its log says why. Its owner must repair the keys file"
    return Access(status=503, message=message, code="keys_unavailable", retry_after_s=_REPAIR_S)
