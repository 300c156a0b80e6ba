"""A small imitation of the Hugging Face hub on loopback: what huggingface_hub and nbllm.store.pulling ask of it.

GET  /api/models/ORG/REPO/revision/REVISION   the files with their sizes and LFS hashes
GET  /ORG/REPO/resolve/REVISION/FILE          a redirect to another server, as to the hub's storage
GET  STORAGE/ORG/REPO/FILE                    the bytes, by ranges
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
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_secretOfThisTest"
_MODEL = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Hub:
    """What the servers have and do, and what they were asked for.

    Attributes:
        hashes, sizes: what the hub says of a file that is otherwise.
        gated, private: repositories that want TOKEN.
        cuts: after how many bytes of an answer the storage's connection ends, an entry a request; then none does.
        statuses: what the storage answers instead, an entry a request.
        knows_ranges: whether the storage answers 206.
        released: while it is not set, the storage waits before it answers.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    cuts: deque[int] = field(default_factory=deque)
    statuses: deque[int] = field(default_factory=deque)
    api_status: int = 200
    api_body: bytes = b""
    knows_ranges: bool = True
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    tokens_at_storage: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    endpoint: str = ""
    storage: str = ""

    @property
    def downloads(self) -> int:
        return len(self.ranges)


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]

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
        if self.command != "HEAD":
            self.wfile.write(body)


class _Front(_Handler):
    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if model := _MODEL.fullmatch(path):
            self._info(model[1], model[2] or "main")
        elif file := _RESOLVE.fullmatch(path):
            self._resolve(file[1], file[3])
        else:
            self.answer(404)

    def _info(self, repository: str, revision: str) -> None:
        hub = self.hub
        if hub.api_status != 200 or hub.api_body:
            self.answer(hub.api_status, hub.api_body)
        elif self._is_missing(repository):
            self.answer(401, b'{"error": "Invalid username or password."}', X_Error_Code="RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.answer(404, X_Error_Code="RevisionNotFound")
        else:
            siblings = [self._sibling(name, data) for name, data in hub.files[repository].items()]
            info = {
                "id": repository,
                "modelId": repository,
                "sha": COMMIT,
                "private": False,
                "tags": [],
                "downloads": 0,
            }
            self.answer(200, json.dumps({**info, "siblings": siblings}).encode(), Content_Type="application/json")

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": "b" * 40}
        if name.casefold().endswith(".gguf"):
            sha256 = self.hub.hashes.get(name) or hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": self.hub.sizes.get(name, len(data)), "pointerSize": 134}
        return entry

    def _resolve(self, repository: str, name: str) -> None:
        data = self.hub.files.get(repository, {}).get(name)
        if repository in self.hub.gated and not self._has_token():
            self.answer(403, X_Error_Code="GatedRepo", X_Error_Message=f"Access to {repository} is restricted.")
        elif self._is_missing(repository):
            self.answer(401, X_Error_Code="RepoNotFound")
        elif data is None:
            self.answer(404, X_Error_Code="EntryNotFound")
        else:
            sha256 = hashlib.sha256(data).hexdigest()
            self.answer(
                302,
                Location=f"{self.hub.storage}/{repository}/{name}",
                X_Repo_Commit=COMMIT,
                X_Linked_Size=str(len(data)),
                X_Linked_Etag=f'"{sha256}"',
            )

    def _is_missing(self, repository: str) -> bool:
        return repository not in self.hub.files or (repository in self.hub.private and not self._has_token())

    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"


class _Storage(_Handler):
    def do_GET(self) -> None:
        hub = self.hub
        hub.released.wait()
        hub.tokens_at_storage.append(self.headers.get("Authorization", ""))
        wanted = self.headers.get("Range", "")
        hub.ranges.append(wanted)
        if hub.statuses:
            self.answer(hub.statuses.popleft())
            return
        owner, repo, name = unquote(self.path).lstrip("/").split("/", 2)
        data = hub.files[f"{owner}/{repo}"][name]
        match = _RANGE.fullmatch(wanted)
        if match and hub.knows_ranges:
            first, last = int(match[1]), int(match[2])
            self._send(206, data[first : last + 1], f"bytes {first}-{last}/{len(data)}")
        else:
            self._send(200, data, "")

    def _send(self, status: int, data: bytes, content_range: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        cut = self.hub.cuts.popleft() if self.hub.cuts else len(data)
        self.wfile.write(data[:cut])


@contextmanager
def serving() -> Iterator[Hub]:
    """The hub and its storage, on two ports."""
    hub = Hub()
    hub.released.set()
    with ExitStack() as stack:
        hub.storage = stack.enter_context(_served(type("Storage", (_Storage,), {"hub": hub})))
        hub.endpoint = stack.enter_context(_served(type("Front", (_Front,), {"hub": hub})))
        stack.callback(hub.released.set)
        yield hub


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


def use(hub: Hub, patch: Any) -> None:
    """Make huggingface_hub ask this hub and no other, and know no token."""
    from huggingface_hub import constants

    from nbllm.store.pulling import download

    patch.setenv("HF_ENDPOINT", hub.endpoint)
    patch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # or its user agent is looked up at the real hub
    patch.setattr(download, "WAITS_S", (0.0, 0.0))
