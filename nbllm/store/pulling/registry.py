"""What is asked of Ollama's registry, and its errors in one line.

    GET /v2/NAMESPACE/MODEL/manifests/TAG
    GET /v2/NAMESPACE/MODEL/blobs/sha256:...   mostly a redirect to a storage server

No credentials are ever sent, and no cookies. Everything is checked by its SHA-256, the manifest by nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urljoin, urlsplit

from nbllm._version import __version__
from nbllm.config.registry import is_loopback, is_secure
from nbllm.errors import ModelNotFoundError, NbllmError
from nbllm.store.header import shown
from nbllm.store.pulling import download
from nbllm.store.pulling.errors import CutError, UnreachableError
from nbllm.store.pulling.manifest import MAX_MANIFEST_BYTES, Layer, Manifest, read_manifest
from nbllm.store.pulling.ranges import TRY_AGAIN, Chunks, Opener, first_byte
from nbllm.store.pulling.registry_names import RegistryName
from nbllm.store.remote.errors import PullError
from nbllm.store.remote.short_names import no_model

if TYPE_CHECKING:
    import httpx

_ANSWER_WITHIN_S = 20.0
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CHECK_NETWORK = "check the network, or write hf:org/repo for a model of the Hugging Face hub"
_T = TypeVar("_T")


class Registry:
    """A connection to the registry; it is opened when something is asked.

    Args:
        address: of `Config.registry`, not empty.
    """

    def __init__(self, address: str, name: RegistryName) -> None:
        self._address, self._name = address, name
        self._is_here = is_loopback(urlsplit(address).hostname or "")
        self._clients: dict[str, httpx.Client] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            client.close()

    def manifest(self) -> Manifest:
        """What the model is made of.

        Raises:
            ModelNotFoundError: the registry does not have it.
            PullError: the registry cannot be reached, or will not tell.
        """
        name = self._name
        url = f"{self._address}/v2/{name.namespace}/{name.model}/manifests/{name.tag}"
        data = self._tried(lambda: self._body(url, {"Accept": _MANIFEST}, MAX_MANIFEST_BYTES))
        if len(data) > MAX_MANIFEST_BYTES:
            raise PullError(
                f"{name} cannot be pulled: the registry's manifest has more than {MAX_MANIFEST_BYTES:,} bytes"
            )
        return read_manifest(data, str(name))

    def text(self, layer: Layer) -> bytes:
        """A small layer, whole. Raises PullError."""
        data = self._tried(lambda: self._whole_layer(layer))
        if hashlib.sha256(data).hexdigest() != layer.sha256:
            raise PullError(f"{self._name}: its {layer.kind} arrived damaged: its SHA-256 is another; pull again")
        return data

    def opener(self, layer: Layer) -> Opener:
        @contextmanager
        def opened(first: int, last: int) -> Iterator[Chunks]:
            with self._answer(self._blob(layer), {"Range": f"bytes={first}-{last}"}) as response:
                yield Chunks(first_byte(response.status_code, response.headers), response.iter_raw())

        return opened

    def _blob(self, layer: Layer) -> str:
        return f"{self._address}/v2/{self._name.namespace}/{self._name.model}/blobs/{layer.digest}"

    def _whole_layer(self, layer: Layer) -> bytes:
        data = self._body(self._blob(layer), {}, layer.size)
        if len(data) < layer.size:
            raise CutError("the answer ended early")
        return data

    def _body(self, url: str, headers: dict[str, str], most_bytes: int) -> bytes:
        """As far as one byte beyond the limit."""
        data = bytearray()
        with self._answer(url, headers) as response:
            for chunk in response.iter_raw():
                data += chunk[: most_bytes + 1 - len(data)]
                if len(data) > most_bytes:
                    break
        return bytes(data)

    def _tried(self, ask: Callable[[], _T]) -> _T:
        waits = iter(download.WAITS_S)
        while True:
            try:
                return ask()
            except CutError as exc:
                wait_s = None if isinstance(exc, UnreachableError) else next(waits, None)
                if wait_s is None:
                    raise PullError(f"cannot reach {self._address} ({exc.why}): {_CHECK_NETWORK}") from None
                time.sleep(wait_s)

    @contextmanager
    def _answer(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """To the request, or to the last one that the answers lead to."""
        for _ in range(_MOST_REDIRECTS):
            with self._translated(), self._client(url).stream("GET", url, headers=headers) as response:
                if response.status_code not in _REDIRECTS:
                    self._check(response.status_code, is_manifest="Accept" in headers)
                    yield response
                    return
                url = self._followed(url, response.headers.get("Location", ""))
        raise PullError(f"{self._address} leads from one address to the next: {_CHECK_NETWORK}")

    def _client(self, url: str) -> httpx.Client:
        scheme = urlsplit(url).scheme
        if scheme not in self._clients:
            import httpx

            self._clients[scheme] = httpx.Client(
                headers={"User-Agent": f"nbllm/{__version__}", "Accept-Encoding": "identity"},
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                timeout=_ANSWER_WITHIN_S,
                follow_redirects=False,
                trust_env=not self._is_here,  # no proxy leads back to this machine
                verify=scheme == "https",  # reading the certificates takes longer than the rest
            )
        return self._clients[scheme]

    def _followed(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            parts = urlsplit(target)
            is_safe = is_secure(target) and bool(parts.hostname) and "@" not in parts.netloc and target.isprintable()
        except ValueError:
            is_safe = False
        if not location or not is_safe or (parts.scheme == "http" and not self._is_here):
            raise PullError(f"{self._address} leads to an address that is not followed, which is no plain https one")
        return target

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Without the causes: they hold signed addresses."""
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as exc:
            raise UnreachableError(type(exc).__name__) from None
        except httpx.RequestError as exc:
            raise CutError(type(exc).__name__) from None
        except httpx.InvalidURL:
            raise PullError(f"{self._address} leads to what is no address") from None

    def _check(self, status: int, *, is_manifest: bool) -> None:
        if status in TRY_AGAIN:
            raise CutError(f"HTTP {status}")
        if status not in (200, 206):
            raise self._refusal(status, is_manifest)

    def _refusal(self, status: int, is_manifest: bool) -> NbllmError:
        name = shown(self._name)
        if status == 404 and is_manifest:
            return ModelNotFoundError(f"{no_model(str(self._name))}; {self._address} has no such name and tag either")
        if status == 404:
            return PullError(f"a file of {name} has just gone from {self._address}: pull again")
        if status in (401, 403):
            return PullError(
                f"{self._address} does not give {name} to everybody (HTTP {status}): check the spelling; what needs an "
                f"account is got by ollama pull {name}, and is then listed here too"
            )
        if status == 429:
            return PullError(f"{self._address} has had too many requests from here: wait some minutes")
        return PullError(f"{self._address} refuses {name} (HTTP {status}): {_CHECK_NETWORK}")
