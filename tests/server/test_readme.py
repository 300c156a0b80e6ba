"""The README's examples of the API do what they say, as they are printed, on a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.config import load_config
from tests.server.serving import Client, real_server
from tests.server.test_browser import pages
from tests.test_readme import blocks

_PRINTED = "localhost:4891"
pytestmark = [pytest.mark.model, pytest.mark.usefixtures("smollm2_path")]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with real_server(tmp_path_factory.mktemp("served")) as client:
        yield client


def example(language: str, client: Client) -> str:
    (block,) = blocks(language)
    assert _PRINTED in block.code
    return block.code.replace(_PRINTED, f"localhost:{client.port}")


def test_curl(client: Client) -> None:
    done = subprocess.run(["sh", "-c", example("sh", client)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"].strip()


def test_raw_http(client: Client) -> None:
    head, _, body = example("http", client).strip().partition("\n\n")
    assert f"Content-Length: {len(body)}" in head
    with client.raw((head.replace("\n", "\r\n") + "\r\n\r\n" + body).encode()) as connection:
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    status, _, rest = answer.partition(b"\r\n")
    assert status == b"HTTP/1.1 200 OK"
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["object"] == "chat.completion"


@pytest.mark.browser
def test_fetch_in_a_page(client: Client, chromium_path: str) -> None:
    with pages(chromium_path) as (page, port):
        page.goto(f"http://localhost:{port}/")
        text: str = page.evaluate(f"async () => {{ {example('javascript', client)}; return text; }}")
    assert text.strip()


def test_official_client(client: Client) -> None:
    done = subprocess.run([sys.executable, "-c", example("py", client)], capture_output=True, text=True, check=True)
    assert done.stdout.strip()


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks("toml")
    file = tmp_path / "config.toml"
    file.write_text(block.code)
    monkeypatch.setenv("NBLLM_CONFIG", str(file))
    config = load_config()
    assert (config.keep_alive, config.max_loaded_models) == (600, 2)
    assert config.unaliased("gpt-4o-mini") == "smollm2"
    assert config.endpoints["big"].api_key_env == "GPU_KEY"
