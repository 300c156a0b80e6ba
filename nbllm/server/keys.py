"""API keys: `sk-` and 48 letters and digits, of which only a hash is kept.

The file is JSON:

    {"version": 1, "keys": [{"id": "Zk3…", "name": "laptop", "sha256": "9f86…", "scopes": ["chat", "models"],
                             "created": "2026-11-22T05:13:00Z", "models": null, "expires": null,
                             "max_concurrent": null}]}

The hash is a plain SHA-256. A slow, salted one protects passwords, of which a list holds most; 48 random characters
are 285 bits, which nobody guesses from a hash however fast it is, and this one is computed for every request.
"""

from __future__ import annotations

import difflib
import hashlib
import secrets
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from nbllm.core.numbers import Range
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.server.keyfile import Contents, KeyFile, KeyFileError
from nbllm.server.scopes import USUAL_SCOPES, Scope, parse_scopes

PREFIX = "sk-"
_NUM_CHARACTERS = 48
_ID_LENGTH = 8
_ALPHABET = string.ascii_letters + string.digits
_MAX_NAME_LENGTH = 64
_RESERVED_NAMES = ("anonymous", "notebook", "-")  # what the access log calls those who have no key
_CONCURRENT = Range(int, 1, 100_000, "1 to 100,000 requests at a time")

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a key. No field may be missing in the file: a lost `expires` would mean never.

    Args:
        id: the first 8 characters after `sk-`; not a secret.
        models: the only ones it opens; None opens all.
        expires: None is never.
        max_concurrent: requests at a time; None is as many as the server takes.
    """

    id: str
    name: str
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...]
    created: _Moment
    models: tuple[str, ...] | None
    expires: _Moment | None
    max_concurrent: Annotated[int, msgspec.Meta(ge=1)] | None

    def is_expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


class Created(NamedTuple):
    """A new key and its secret, which is nowhere else."""

    key: Key
    secret: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whom a secret belongs to; `problem` says why to nobody."""

    key: Key | None = None
    problem: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal[1]
    keys: tuple[Key, ...]


class KeyStore:
    """The keys in one file, read again whenever it has changed: what any process revokes is void at once.

    Each method that looks at the file raises KeyFileError when it is damaged, cannot be used or can be read by
    others; a file that is not there holds no keys.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._file = KeyFile(path)
        self._now = now
        self._read: tuple[Contents, tuple[Key, ...]] | None = None

    @property
    def path(self) -> Path:
        return self._file.path

    def list(self) -> tuple[Key, ...]:
        """All keys, expired ones too, oldest first."""
        stamp = self._file.stamp()
        if stamp is not None and self._read is not None:
            contents, keys = self._read
            if contents.is_settled and contents.stamp == stamp:
                return keys
        return self._parsed(self._file.read())

    def verify(self, presented: str) -> Verdict:
        """Find the key of a secret, in a time that does not tell how much of the secret is right."""
        digest = _digest(presented)
        found: Key | None = None
        for key in self.list():  # all of them, also after a match
            if compare_digest(key.sha256, digest):
                found = key
        if found is None:
            return Verdict(problem="it is wrong or was revoked")
        if found.expires is not None and found.is_expired(self._now()):
            return Verdict(problem=f"it expired on {found.expires.astimezone(UTC):%Y-%m-%d at %H:%M} UTC")
        return Verdict(found)

    def create(
        self,
        name: str,
        *,
        scopes: Iterable[str] = USUAL_SCOPES,
        models: Iterable[str] | None = None,
        expires_in: timedelta | None = None,
        max_concurrent: int | None = None,
    ) -> Created:
        """Add a key. Its secret is in the result and cannot be had again.

        Raises:
            ParameterError: the name is taken, or a value is not allowed.
            KeyFileError: the file cannot be written; it is as it was.
        """
        now = self._now().replace(microsecond=0)
        secret = "".join(secrets.choice(_ALPHABET) for _ in range(_NUM_CHARACTERS))
        key = Key(
            id=secret[:_ID_LENGTH],
            name=_checked_name(name),
            sha256=_digest(PREFIX + secret),
            scopes=parse_scopes(scopes),
            created=now,
            models=_checked_models(models),
            expires=_expiry(now, expires_in),
            max_concurrent=_checked_count(max_concurrent),
        )
        with self._file.locked():
            keys = self._parsed(self._file.read())
            if any(key.name in (other.name, other.id) for other in keys):
                raise ParameterError("name", f"{key.name!r} is taken; revoke that key or choose another name")
            if any(key.id in (other.name, other.id) for other in keys):  # 1 in 10^14: no loop for that
                raise InvalidRequestError("the new key's id is taken by chance; create it again")
            self._write((*keys, key))
        return Created(key, PREFIX + secret)

    def revoke(self, id_or_name: str) -> Key:
        """Remove a key; from the next request on it opens nothing.

        Args:
            id_or_name: or the whole secret.

        Raises:
            InvalidRequestError: there is no such key, or there are several of that name.
            KeyFileError: the file cannot be written; it is as it was.
        """
        with self._file.locked():
            keys = self._parsed(self._file.read())
            digest = _digest(id_or_name)
            found = [key for key in keys if id_or_name in (key.id, key.name) or key.sha256 == digest]
            if not found:
                raise InvalidRequestError(_no_such_key(id_or_name, keys))
            if len(found) > 1:
                ids = ", ".join(key.id for key in found)
                raise InvalidRequestError(f"{len(found)} keys are named {id_or_name!r}: give one of the ids {ids}")
            self._write(tuple(key for key in keys if key is not found[0]))
        return found[0]

    def _parsed(self, contents: Contents | None) -> tuple[Key, ...]:
        if contents is None:
            self._read = None
            return ()
        try:
            keys = msgspec.json.decode(contents.data, type=_File).keys
        except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
            problem = f"the keys file {self.path} is damaged ({exc!s:.200})"
            raise KeyFileError(f"{problem}: repair it, or move it away and make new keys") from exc
        self._read = contents, keys
        return keys

    def _write(self, keys: tuple[Key, ...]) -> None:
        self._file.replace(msgspec.json.format(msgspec.json.encode(_File(1, keys)), indent=2) + b"\n")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _MAX_NAME_LENGTH or not name.isprintable():
        raise ParameterError("name", f"must be 1 to {_MAX_NAME_LENGTH} visible characters, not {name[:80]!r}")
    if name.startswith("-") or name in _RESERVED_NAMES:
        raise ParameterError("name", f"{name!r} would be misread in commands or logs; choose another")
    return name


def _checked_models(models: Iterable[str] | None) -> tuple[str, ...] | None:
    if models is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in models))
    if not names or not all(name and name.isprintable() for name in names):
        raise ParameterError("models", "must be names of models, or be left out for all models")
    return names


def _expiry(now: datetime, expires_in: timedelta | None) -> datetime | None:
    if expires_in is None:
        return None
    if expires_in <= timedelta(0):
        raise ParameterError("expires", "must be a time to come, such as 30d")
    try:
        return now + expires_in
    except OverflowError as exc:
        raise ParameterError("expires", "is too far off; leave it out for a key that never expires") from exc


def _checked_count(max_concurrent: int | None) -> int | None:
    if max_concurrent is None:
        return None
    return int(_CONCURRENT.checked("max_concurrent", max_concurrent))


def _no_such_key(asked: str, keys: Iterable[Key]) -> str:
    if asked.startswith(PREFIX):  # a secret, which must not be shown again
        return "no key has this secret; see  jupyter nbllm keys list"
    known = [name for key in keys for name in (key.name, key.id)]
    close = difflib.get_close_matches(asked[:_MAX_NAME_LENGTH], known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "see  jupyter nbllm keys list"
    return f"no key has the id or name {asked[:_MAX_NAME_LENGTH]!r}; {hint}"
