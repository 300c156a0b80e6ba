"""Files that clients send for models to be made of."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.server import uploads
from tests.server.serving import TOY, Answer, Site, wait_until
from tests.store.gguf_writer import tiny_model

API = "nbllm/ollama/api/"
_DATA = bytes(range(256)) * 40_000  # ten times a piece
_Usage = namedtuple("_Usage", "total used free")


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def send(site: Site, data: Any, name: str = "", **more: Any) -> Answer:
    return site.post(API + f"blobs/{name or digest(data)}", data, **more)


def _held(site: Site) -> list[Path]:
    return sorted((site.models_dir / ".blobs").glob("*"))


@pytest.mark.parametrize("data", [b"", b"x", _DATA], ids=["nothing", "little", "several pieces"])
def test_blob_is_kept(site: Site, data: bytes) -> None:
    path = API + f"blobs/{digest(data)}"
    assert site.request("HEAD", path).status == 404
    answer = send(site, data)
    assert (answer.status, answer.body) == (201, b"")
    assert site.request("HEAD", path).status == 200
    assert [file.read_bytes() for file in _held(site)] == [data]
    assert send(site, data).status == 200


@pytest.mark.parametrize("kind", ["application/octet-stream", "image/png", ""])
def test_body_is_called_what_a_client_likes(site: Site, kind: str) -> None:
    assert send(site, b"abc", headers={"Content-Type": kind}).status == 201


def test_blob_larger_than_other_bodies(site: Site) -> None:
    data = bytes(site.service.limits.max_body_bytes + 1)
    assert send(site, data).status == 201


def test_wrong_digest_leaves_nothing(site: Site) -> None:
    answer = send(site, _DATA, digest(b"other"))
    assert answer.status == 400
    assert digest(_DATA) in answer.json()["error"]
    wait_until(lambda: not _held(site))


def _head(site: Site, length: int) -> bytes:
    key = "".join(f"{name}: {value}\r\n" for name, value in site.headers.items())
    start = f"POST {site.base_url}{API}blobs/{digest(_DATA)} HTTP/1.1\r\nHost: localhost\r\n"
    return f"{start}{key}Content-Length: {length}\r\n\r\n".encode()


def test_blob_that_is_cut_leaves_nothing(site: Site) -> None:
    with site.raw(_head(site, len(_DATA)) + _DATA[: 3 * 2**20]):
        wait_until(lambda: _held(site))
    wait_until(lambda: not _held(site))


def test_chunks_without_a_length(site: Site) -> None:
    assert send(site, iter([_DATA[:100], _DATA[100:]]), digest(_DATA)).status == 201
    assert [file.read_bytes() for file in _held(site)] == [_DATA]


def test_blob_that_does_not_fit_is_refused_before_it_comes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    free = uploads._SPARE_BYTES + 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(free, 0, free))
    with site.raw(_head(site, len(_DATA))) as connection:
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 30" in head
    assert b"10 MB are needed, and 1 MB of the disk are free" in body
    wait_until(lambda: not _held(site))


def test_disk_that_gets_full_is_said_and_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    room = iter([2**40, 2**40, 2**40])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(0, 0, next(room, 0)))
    answer = send(site, iter([_DATA]), digest(_DATA))
    assert answer.status == 503
    assert "of the disk are free" in answer.json()["error"]
    wait_until(lambda: not _held(site))


def test_folder_that_cannot_be_written_to_is_said_without_its_name(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(**_: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    answer = send(site, b"x")
    assert answer.status == 503
    assert str(site.folder) not in answer.json()["error"]
    assert str(site.folder) in caplog.text


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods(site: Site, method: str) -> None:
    assert site.request(method, API + f"blobs/{digest(b'x')}").status == 405


@pytest.mark.parametrize("scopes", [["chat"], ["models"]])
def test_key_that_may_not(site: Site, scopes: Any) -> None:
    headers = {"Authorization": f"Bearer {site.keys.create('narrow', scopes=scopes).secret}"}
    assert send(site, b"x", headers=headers, bare=True).status == 403
    assert site.request("HEAD", API + f"blobs/{digest(b'x')}", headers=headers, bare=True).status == 403
    assert send(site, b"x", bare=True).status == 401
    assert not _held(site)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80),
        st.sampled_from(["..", "../../x", "sha256:..", "/etc/passwd", "%00", "sha256:\n", "sha256:../" + "a" * 61]),
        st.sampled_from([f"sha256:{'A' * 64}", f"sha256-{'a' * 64}", f"sha256:{'a' * 63}", f"sha256:{'a' * 64}/.."]),
    )
)
def test_digest_that_is_none_reaches_no_file(site: Site, name: str) -> None:
    path = API + "blobs/" + quote(name, safe="")
    before = sorted(site.folder.rglob("*.part"))
    for answer in (site.request("HEAD", path), site.post(path, b"x")):
        assert answer.status in (400, 404)
    assert sorted(site.folder.rglob("*.part")) == before
    assert not _held(site)


def test_model_of_a_blob(site: Site) -> None:
    data = tiny_model()
    send(site, data)
    made = site.post(API + "create", {"model": "mine", "files": {"../../x.gguf": digest(data)}, "stream": False})
    assert (made.status, made.json()) == (200, {"status": "success"})
    assert site.post(API + "generate", {"model": "mine", "prompt": "x", "stream": False}).status == 200
    shown = site.post(API + "show", {"model": "mine"}).json()
    assert shown["model_info"]["general.architecture"] == "llama"
    assert str(site.folder) not in str(shown)
    assert site.request("DELETE", API + "delete", {"model": "mine"}).status == 200
    assert not _held(site)
    assert site.get(API + "ps").json()["models"] == []
    assert site.post(API + "show", {"model": TOY}).status == 200
