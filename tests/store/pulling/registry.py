"""A small imitation of Ollama's registry on loopback.

GET  /v2/NAMESPACE/MODEL/manifests/TAG     what the model is made of
GET  /v2/NAMESPACE/MODEL/blobs/DIGEST      a redirect to another server, as to the registry's storage
GET  STORAGE/DIGEST                        the bytes, by ranges
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

_MANIFEST = re.compile(r"/v2/([^/]+/[^/]+)/manifests/([^/]+)")
_BLOB = re.compile(r"/v2/[^/]+/[^/]+/blobs/(sha256:[0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Registry:
    """What the servers have and do, and what they were asked for.

    Attributes:
        manifests: by "namespace/model:tag".
        leads_to: where the registry sends those who ask for a blob; "" is its storage.
        front_statuses: what the registry answers instead, an entry a request.
        cuts: after how many bytes of an answer the storage's connection ends, an entry a request; then none does.
        statuses: what the storage answers instead, an entry a request.
        released: while it is not set, the storage waits before it answers.
        headers: of every request.
    """

    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    leads_to: str = ""
    front_statuses: deque[int] = field(default_factory=deque)
    cuts: deque[int] = field(default_factory=deque)
    statuses: deque[int] = field(default_factory=deque)
    knows_ranges: bool = True
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    address: str = ""
    storage: str = ""

    def add(self, name: str, *layers: tuple[str, bytes]) -> None:
        """A model of layers of these kinds; "library/m:latest" is the whole name of m."""
        self.manifests[name] = json.dumps({"schemaVersion": 2, "layers": [self.layer(*one) for one in layers]}).encode()

    def layer(self, kind: str, data: bytes) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest(data), "size": len(data)}

    def asked_for(self, data: bytes) -> list[str]:
        """The ranges of a blob that were asked for."""
        return [entry.partition(" ")[2] for entry in self.fetched if entry.startswith(digest(data))]


class _Handler(BaseHTTPRequestHandler):
    registry: ClassVar[Registry]

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client has gone, as it may
            return

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.registry.cuts.popleft() if status < 300 and self.registry.cuts else len(body)
        self.wfile.write(body[:cut])


class _Front(_Handler):
    def do_GET(self) -> None:
        registry = self.registry
        registry.asked.append(self.path)
        registry.headers.append(dict(self.headers))
        if registry.front_statuses:
            self.answer(registry.front_statuses.popleft(), b"{}", WWW_Authenticate="Basic")
        elif model := _MANIFEST.fullmatch(self.path):
            body = registry.manifests.get(f"{model[1]}:{model[2]}")
            self.answer(404 if body is None else 200, body or b'{"errors":[]}', Set_Cookie="session=secret; Path=/")
        elif blob := _BLOB.fullmatch(self.path):
            self.answer(307, Location=registry.leads_to or f"{registry.storage}/{blob[1]}?signature=s")
        else:
            self.answer(404)


class _Storage(_Handler):
    def do_GET(self) -> None:
        registry = self.registry
        registry.released.wait()
        registry.headers.append(dict(self.headers))
        wanted = self.headers.get("Range", "")
        name = self.path.lstrip("/").partition("?")[0]
        registry.fetched.append(f"{name} {wanted}")
        data = registry.blobs.get(name)
        match = _RANGE.fullmatch(wanted)
        if registry.statuses:
            self.answer(registry.statuses.popleft())
        elif data is None:
            self.answer(404)
        elif match and registry.knows_ranges:
            first, last = int(match[1]), int(match[2])
            self.answer(206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}")
        else:
            self.answer(200, data)


@contextmanager
def serving() -> Iterator[Registry]:
    """The registry and its storage, on two ports."""
    registry = Registry()
    registry.released.set()
    with ExitStack() as stack:
        registry.storage = stack.enter_context(_served(type("Storage", (_Storage,), {"registry": registry})))
        registry.address = stack.enter_context(_served(type("Front", (_Front,), {"registry": registry})))
        stack.callback(registry.released.set)
        yield registry


@contextmanager
def _served(handler: type[_Handler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
