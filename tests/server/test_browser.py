"""Pages in a real browser: one on another port of this machine may ask, one of a stranger gets nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.server.serving import Client, real_server

pytestmark = [pytest.mark.model, pytest.mark.browser, pytest.mark.usefixtures("smollm2_path")]
STRANGER = "stranger.invalid"
_ASK = """
async ([url, mode]) => {
  const body = JSON.stringify({
    model: "smollm2", stream: true, max_tokens: 12, temperature: 0,
    messages: [
      { role: "system", content: "You are a helpful assistant." },
      { role: "user", content: "What is the capital of France?" },
    ],
  });
  const headers = { "Content-Type": mode === "no-cors" ? "text/plain" : "application/json" };
  try {
    const response = await fetch(url, { method: "POST", headers, body, mode });
    const pieces = [];
    if (response.body) {
      const reader = response.body.getReader();
      for (let read; !(read = await reader.read()).done; ) pieces.push(new TextDecoder().decode(read.value));
    }
    return { type: response.type, status: response.status, pieces };
  } catch (error) {
    return { type: "refused", status: 0, pieces: [], message: String(error) };
  }
}
"""


class _Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A page</title>")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def pages(executable: str) -> Iterator[tuple[Page, int]]:
    """A page, and the port of a web server that has one more."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            with sync_playwright() as playwright:
                arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1"]
                browser = playwright.chromium.launch(executable_path=executable, args=arguments)
                yield browser.new_page(), web.server_address[1]
                browser.close()
        finally:
            web.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    folder = tmp_path_factory.mktemp("served")
    with real_server(folder) as client:
        yield client, folder / "log"


def _asked(page: Page, client: Client, mode: str = "cors", host: str = "127.0.0.1") -> dict[str, Any]:
    url = f"http://{host}:{client.port}/v1/chat/completions"
    answer: dict[str, Any] = page.evaluate(_ASK, [url, mode])
    return answer


def test_page_on_another_local_port_streams(served: tuple[Client, Path], chromium_path: str) -> None:
    client, _ = served
    with pages(chromium_path) as (page, port):
        page.goto(f"http://localhost:{port}/")
        answer = _asked(page, client)
    assert (answer["type"], answer["status"]) == ("cors", 200)
    text = "".join(answer["pieces"])
    assert "Paris" in text
    assert text.endswith("data: [DONE]\n\n")
    assert len(answer["pieces"]) > 1, "it came in one piece"


@pytest.mark.parametrize("host", ["127.0.0.1", STRANGER], ids=["loopback", "name that leads here"])
@pytest.mark.parametrize("mode", ["cors", "no-cors"])
def test_page_of_a_stranger_gets_nothing(served: tuple[Client, Path], chromium_path: str, mode: str, host: str) -> None:
    """Neither an answer nor, where a browser asks no leave before it sends, the work of one."""
    client, log = served
    before = log.read_text().count("status=200")
    with pages(chromium_path) as (page, port):
        page.goto(f"http://{STRANGER}:{port}/")
        answer = _asked(page, client, mode, host)
    assert answer["type"] in ("refused", "opaque")
    assert answer["pieces"] == []
    assert log.read_text().count("status=200") == before
