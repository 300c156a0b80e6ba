"""A small HTTP server that plays others: llama-server, vLLM, OpenAI, and broken ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class Reply:
    """How a play answers: a status and JSON, or pieces one by one. `is_gone` is set when the client hung up."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.is_gone = threading.Event()

    def json(self, body: Any, status: int = 200, **headers: str) -> None:
        content = json.dumps(body).encode()
        self.start(status, "application/json", {"Content-Length": str(len(content)), **headers})
        self.write(content)

    def start(self, status: int, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self._handler.send_response(status)
        for name, value in {"Content-Type": kind, "Connection": "close", **(headers or {})}.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def stream(self, *events: Any, done: bool = True) -> None:
        self.start(200, "text/event-stream; charset=utf-8")
        self.events(*events)
        if done:
            self.write(b"data: [DONE]\n\n")

    def events(self, *events: Any) -> None:
        for event in events:
            self.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            self._handler.wfile.write(data)
            self._handler.wfile.flush()

    def wait_until_gone(self) -> None:
        """Until the client closes its end."""
        with suppress(OSError):
            self._handler.connection.settimeout(20)
            if self._handler.connection.recv(1) == b"":
                self.is_gone.set()


Play = Callable[[Asked, Reply], None]


@dataclass
class Playhouse:
    """A running server: what is played at which path, and what was asked."""

    url: str
    plays: dict[str, Play] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def bodies(self) -> list[Any]:
        return [asked.body for asked in self.asked if asked.method == "POST"]

    def chat(self, play: Play) -> None:
        self.plays["POST /v1/chat/completions"] = play

    def answers(self, *texts: str) -> None:
        """Answer every chat with these pieces."""
        self.chat(lambda asked, reply: reply.stream(*chat_events(*texts)))

    def lists(self, *entries: Mapping[str, Any]) -> None:
        self.plays["GET /v1/models"] = lambda asked, reply: reply.json({"object": "list", "data": list(entries)})


def chat_events(*texts: str, reason: str = "stop", usage: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    counts = {"prompt_tokens": 7, "completion_tokens": len(texts), **(usage or {})}
    return [
        delta({"role": "assistant", "content": ""}),
        *(delta({"content": piece}) for piece in texts),
        delta({}, reason),
        {"choices": [], "usage": counts},
    ]


def delta(fields: Mapping[str, Any], reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": reason}]}


@contextmanager
def playhouse() -> Iterator[Playhouse]:
    house = Playhouse("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._play(None)

        def do_POST(self) -> None:
            self._play(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _play(self, body: Any) -> None:
            self.close_connection = True
            asked = Asked(self.command, self.path, dict(self.headers), body)
            house.asked.append(asked)
            play = house.plays.get(f"{self.command} {self.path}")
            if play is None:
                Reply(self).json({"error": {"message": f"nothing at {self.path}", "code": "not_found"}}, 404)
            else:
                play(asked, Reply(self))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    house.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield house
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
