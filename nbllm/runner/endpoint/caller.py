"""One OpenAI-compatible server: its addresses, the key, what is tried again, and its failures as errors."""

from __future__ import annotations

import asyncio
import email.utils
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from nbllm._version import __version__
from nbllm.errors import EndpointError, ModelNotFoundError, NbllmError
from nbllm.runner.endpoint.unreachable import is_lasting, never_arrived, problem
from nbllm.wire.outgoing.answers import StreamReader
from nbllm.wire.outgoing.listing import ServedModel, served_models
from nbllm.wire.outgoing.parsing import parsed
from nbllm.wire.outgoing.refusals import Refusal, failure, one_line, refusal

if TYPE_CHECKING:
    import httpx

_Value = TypeVar("_Value")
_CONNECT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
_MOST_PATIENCE_S = 60.0
"""A server that asks for a longer pause is not waited for: the error says when to ask again."""
_FIRST_CONTACT_S = 1.0
"""How long a server that never answered is tried: more likely its address is wrong than that it will be there soon."""
_MOST_ERROR_BYTES, _MOST_BODY_BYTES = 64 * 1024, 256 * 2**20
_VERSIONED = re.compile(r"/v\d+[a-z0-9]*$")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class TemporaryError(Exception):
    """What may go well the next time: `error` if it does not, `pause_s` where the server said how long to wait."""

    def __init__(self, error: NbllmError, pause_s: float | None = None) -> None:
        super().__init__()
        self.error, self.pause_s = error, pause_s


class Caller:
    """Asks one server. For one event loop.

    Args:
        key_name: where the key comes from, for errors.
        timeout_s: longest silence of the server, None waits.
        max_retries: of a request that was not answered yet. Until the server has answered once, a failed connection is
            tried again for a second only.
    """

    def __init__(
        self, base_url: str, *, api_key: str | None, key_name: str, timeout_s: float | None, max_retries: int
    ) -> None:
        self.base_url = base_url
        self._api_key, self._key_name = api_key, key_name
        self._timeout_s, self._max_retries = timeout_s, max_retries
        self._root = base_url if _VERSIONED.search(base_url) else None
        self._first_look = asyncio.Lock()
        self._was_reached = False
        self._first_try_at: float | None = None
        self._client: httpx.AsyncClient | None = None

    @property
    def is_openai(self) -> bool:
        """OpenAI itself, which needs no asking."""
        return urlsplit(self.base_url).hostname == "api.openai.com"

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def models(self, model: str = "") -> list[ServedModel]:
        """The models that the server lists. Raises as `post` does, and EndpointError when it is no list."""
        root = await self.root()
        status, body = await self.get(f"{root}/models")
        if status != 200:
            raise self._failure(refusal(status, body, self._api_key), model)
        models = served_models(parsed(body))
        if models is None:
            raise EndpointError(f"{root}/models is no list of models: is the address right?")
        return models

    async def only_model(self) -> str:
        """The name of the only model. Raises ModelNotFoundError, with the names, when there is another number."""
        names = [model.name for model in await self.models()]
        if len(names) == 1:
            return names[0]
        shown = one_line(", ".join(names[:20])) or "none"
        raise ModelNotFoundError(f"say which model: {self.base_url} has {len(names):,} ({shown})")

    async def root(self) -> str:
        """The base URL with the /v1 that it may lack: what answers to /models there is the API."""
        async with self._first_look:
            await self._find_root()
        assert self._root is not None
        return self._root

    async def _find_root(self) -> None:
        if self._root is None:
            versioned = f"{self.base_url}/v1"
            status, body = await self.get(f"{versioned}/models")
            if not _is_list(status, body):
                bare_status, bare_body = await self.get(f"{self.base_url}/models")
                versioned = self.base_url if _is_list(bare_status, bare_body) else versioned
            self._root = versioned

    async def get(self, url: str) -> tuple[int, bytes]:
        """A status and a body, whichever; asked again while the server is busy."""

        async def ask() -> tuple[int, bytes]:
            async with self._exchange("GET", url, None) as response:
                content = await _whole(response, _MOST_BODY_BYTES)
                self._raise_if_temporary(response, content, "")
                return response.status_code, content

        return await self.retried(ask)

    async def post(self, path: str, body: bytes, model: str) -> bytes:
        """The body of the answer.

        Raises:
            InvalidRequestError, ModelError, EngineError: as the server's refusal means.
        """
        url = await self.root() + path

        async def ask() -> bytes:
            async with self.accepted(url, body, model) as response:
                return await _whole(response, _MOST_BODY_BYTES)

        return await self.retried(ask)

    @asynccontextmanager
    async def accepted(self, url: str, body: bytes, model: str) -> AsyncIterator[httpx.Response]:
        """A POST that was answered with 200, its body still to be read. For use inside `retried`."""
        async with self._exchange("POST", url, body) as response:
            if response.status_code != 200:
                content = await _whole(response, _MOST_ERROR_BYTES, cut=True)
                self._raise_if_temporary(response, content, model)
                raise self._failure(self._refused(response, content), model)
            yield response

    async def retried(
        self, ask: Callable[[], Awaitable[_Value]], may_retry: Callable[[], bool] = lambda: True
    ) -> _Value:
        """Do `ask`, and again after a growing pause as long as that may help and `may_retry` allows it."""
        for attempt in range(self._max_retries + 1):
            try:
                return await ask()
            except TemporaryError as exc:
                pause_s = exc.pause_s if exc.pause_s is not None else _pause_s(attempt)
                is_hopeless = pause_s > _MOST_PATIENCE_S or not self._may_be_reached(exc, pause_s)
                if attempt == self._max_retries or not may_retry() or is_hopeless:
                    raise exc.error from exc.__cause__
            await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def raise_if_cut_short(self, reader: StreamReader, model: str) -> None:
        """For a stream that came to its end: raise what the server said instead of going on, or that it broke off."""
        refused = reader.refused
        if refused is not None and refused.is_temporary:
            raise TemporaryError(self._failure(refused, model))
        if refused is not None:
            raise self._failure(refused, model)
        if not (reader.is_done or reader.is_complete):
            raise TemporaryError(EndpointError(f"{self.base_url} broke off in the middle of the answer; ask again"))

    def _may_be_reached(self, exc: TemporaryError, pause_s: float) -> bool:
        """Whether it is worth while to try again after the pause."""
        if self._was_reached or not never_arrived(exc.__cause__):
            return True
        return self._first_try_at is None or time.monotonic() + pause_s < self._first_try_at + _FIRST_CONTACT_S

    @asynccontextmanager
    async def _exchange(self, method: str, url: str, body: bytes | None) -> AsyncIterator[httpx.Response]:
        import httpx

        headers = {} if body is None else {"Content-Type": "application/json"}
        self._first_try_at = self._first_try_at or time.monotonic()
        try:
            async with self._connected().stream(method, url, content=body, headers=headers) as response:
                self._was_reached = True
                yield response
        except httpx.ReadTimeout as exc:  # it may be at work: asking again would make it work twice
            raise EndpointError(
                f"{self.base_url} said nothing for {self._timeout_s:g} s; connect with a longer timeout"
            ) from exc
        except (httpx.TransportError, httpx.DecodingError) as exc:
            why = problem(exc, self.base_url, connect_s=_CONNECT_S, secret=self._api_key)
            error = EndpointError(why)
            if is_lasting(exc):
                raise error from exc
            raise TemporaryError(error) from exc

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            headers = {"User-Agent": f"nbllm/{__version__}", "Accept-Encoding": "identity"}
            if self._api_key is not None:
                headers["Authorization"] = f"Bearer {self._api_key}"
            parts = urlsplit(self.base_url)
            is_local = parts.hostname in _LOOPBACK
            self._client = httpx.AsyncClient(
                headers=headers,
                verify=not (is_local and parts.scheme == "http"),  # reading the certificates takes longer than the rest
                timeout=httpx.Timeout(self._timeout_s, connect=_CONNECT_S, pool=None),
                limits=httpx.Limits(max_connections=None),
                follow_redirects=False,  # the key would go wherever an answer points to
                trust_env=not is_local,  # no proxy leads back to this machine
            )
        return self._client

    def _refused(self, response: httpx.Response, content: bytes) -> Refusal:
        if 300 <= response.status_code < 400:
            target = one_line(response.headers.get("Location", "elsewhere"), self._api_key)
            return Refusal(response.status_code, f"it has moved to {target}; connect to where it is")
        return refusal(response.status_code, content, self._api_key)

    def _raise_if_temporary(self, response: httpx.Response, content: bytes, model: str) -> None:
        refused = self._refused(response, content)
        if refused.is_temporary:
            pause_s = _retry_after_s(response.headers.get("Retry-After"))
            raise TemporaryError(self._failure(refused, model), pause_s)

    def _failure(self, refused: Refusal, model: str) -> NbllmError:
        has_key = self._api_key is not None
        return failure(refused, url=self.base_url, model=model, key_name=self._key_name, has_key=has_key)


def _is_list(status: int, body: bytes) -> bool:
    """Also when it wants a key first: then that is where the API is."""
    return status in (401, 403) or (status == 200 and served_models(parsed(body)) is not None)


def _pause_s(attempt: int) -> float:
    """Longer each time, and never the same for two clients that were refused together."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**attempt) * random.uniform(0.5, 1.0)


def _retry_after_s(value: Any) -> float | None:
    """Seconds, or a date."""
    if not isinstance(value, str):
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:9])
    try:
        at: datetime = email.utils.parsedate_to_datetime(value)
        return max(0.0, at.timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


async def _whole(response: Any, most: int, *, cut: bool = False) -> bytes:
    """The body, which must not be larger than `most` unless it may be `cut`."""
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        pieces.append(piece)
        size += len(piece)
        if size > most and cut:
            break
        if size > most:
            raise EndpointError(f"the server sent more than {most:,} bytes")
    return b"".join(pieces)[:most]
