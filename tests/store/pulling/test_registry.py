"""What is asked of the registry, what is not, and what it answers."""

from __future__ import annotations

import json
import logging
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.errors import ModelError, ModelNotFoundError
from nbllm.store.pulling import PullError, pull
from tests.store import gguf_writer as g
from tests.store.pulling.registry import Registry, digest

MODEL = g.tiny_model()


@pytest.fixture
def config(config: Config, registry: Registry) -> Config:
    registry.add("library/m:latest", ("model", MODEL), ("system", b"Be kind."))
    return Config(models_dir=config.models_dir, registry=registry.address)


def get(config: Config) -> Path:
    return pull("m", config=config, memory_bytes=1 << 40)


def refused(config: Config, kind: type[ModelError] = PullError) -> str:
    """What is said, and nothing is left."""
    with pytest.raises(kind) as error:
        get(config)
    assert error.value.__cause__ is None
    assert "\n" not in str(error.value)
    assert "signature" not in "".join(traceback.format_exception(error.value))
    assert list(config.models_dir.rglob("*")) == []
    return str(error.value)


# ---- requests


def test_no_credentials_and_no_cookies_are_sent(
    registry: Registry, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HF_TOKEN", "OLLAMA_BASIC_AUTH"):
        monkeypatch.setenv(name, "me:secret")
    get(config)
    assert len(registry.headers) == 5  # of the manifest, and twice of each layer
    for headers in registry.headers:
        names = {name.casefold() for name in headers}
        assert not names & {"authorization", "cookie", "proxy-authorization", "referer"}
        assert headers["User-Agent"].startswith("nbllm/")
    assert registry.headers[0]["Accept"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_no_proxy_leads_back_to_this_machine(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert get(config).read_bytes() == MODEL


def test_a_registry_below_a_path(registry: Registry, config: Config) -> None:
    moved = Config(models_dir=config.models_dir, registry=f"{registry.address}/below/")
    with pytest.raises(ModelNotFoundError):
        get(moved)
    assert registry.asked == ["/below/v2/library/m/manifests/latest"]


# ---- redirects


def to(location: str) -> Callable[[Registry], None]:
    return lambda registry: setattr(registry, "leads_to", location)


def in_a_circle(registry: Registry) -> None:
    registry.leads_to = f"/v2/library/m/blobs/{digest(MODEL)}"


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        pytest.param(to("http://10.0.0.1/x"), "an address that is not followed", id="http"),
        pytest.param(to("http://models.example/x"), "an address that is not followed", id="http by name"),
        pytest.param(to("file:///etc/passwd"), "an address that is not followed", id="file"),
        pytest.param(to("ftp://127.0.0.1/x"), "an address that is not followed", id="ftp"),
        pytest.param(to("http://me:secret@127.0.0.1/x"), "an address that is not followed", id="password"),
        pytest.param(to("https://me@models.example/x"), "an address that is not followed", id="user"),
        pytest.param(to("https:///x"), "an address that is not followed", id="no host"),
        pytest.param(to("http://[127.0.0.1/x"), "an address that is not followed", id="no address"),
        pytest.param(in_a_circle, "leads from one address to the next", id="circle"),
    ],
)
def test_an_address_that_is_not_followed(
    registry: Registry, config: Config, harm: Callable[[Registry], None], says: str
) -> None:
    harm(registry)
    said = refused(config)
    assert says in said
    assert "secret" not in said
    assert registry.fetched == []


def test_a_registry_elsewhere_does_not_lead_to_this_machine() -> None:
    from nbllm.store.pulling.registry import Registry as Client
    from nbllm.store.pulling.registry_names import RegistryName

    client = Client("https://registry.example", RegistryName(model="m"))
    with pytest.raises(PullError, match="an address that is not followed"):
        client._followed("https://registry.example/v2/", "http://127.0.0.1:8888/api/shutdown")
    assert client._followed("https://registry.example/v2/", "https://storage.example/x").endswith("example/x")


# ---- refusals


@pytest.mark.parametrize("status", [401, 403])
def test_what_needs_an_account(registry: Registry, config: Config, status: int) -> None:
    registry.front_statuses = deque([status])
    said = refused(config)
    assert f"does not give m to everybody (HTTP {status})" in said
    assert "ollama pull m" in said


@pytest.mark.parametrize(
    ("statuses", "says"),
    [
        pytest.param([429], "too many requests", id="429"),
        pytest.param([400], "refuses m (HTTP 400)", id="400"),
        pytest.param([204], "refuses m (HTTP 204)", id="204"),
        pytest.param([503] * 3, "cannot reach http://127.0.0.1", id="503"),
    ],
)
def test_a_registry_that_will_not_tell(registry: Registry, config: Config, statuses: list[int], says: str) -> None:
    registry.front_statuses = deque(statuses)
    assert says in refused(config)


def test_a_busy_registry_is_asked_again(registry: Registry, config: Config) -> None:
    registry.front_statuses = deque([500, 503])
    registry.statuses = deque([502, 503])
    assert get(config).read_bytes() == MODEL


def test_a_blob_that_has_gone(registry: Registry, config: Config) -> None:
    del registry.blobs[digest(MODEL)]
    assert "a file of m has just gone" in refused(config)


def test_no_answer(config: Config) -> None:
    offline = Config(models_dir=config.models_dir, registry="http://127.0.0.1:9")
    said = refused(offline)
    assert said.startswith("cannot reach http://127.0.0.1:9 (ConnectError): check the network")


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (b"<html>Log in to this network</html>", "manifest is not JSON"),
        (b" " * ((1 << 20) + 1), "manifest has more than 1,048,576 bytes"),
        (json.dumps({"manifests": []}).encode(), "manifest has no list of layers"),
    ],
    ids=["log-in page", "too long", "index"],
)
def test_what_is_no_registry(registry: Registry, config: Config, manifest: bytes, says: str) -> None:
    registry.manifests["library/m:latest"] = manifest
    assert says in refused(config)


def test_an_answer_longer_than_promised_is_cut(registry: Registry, config: Config) -> None:
    registry.knows_ranges = False
    registry.blobs[digest(MODEL)] = MODEL * 3
    assert get(config).read_bytes() == MODEL


def test_a_small_layer_longer_than_promised_is_damaged(registry: Registry, config: Config) -> None:
    registry.blobs[digest(b"Be kind.")] = b"Be kind." * 1000
    assert "its system arrived damaged" in refused(config)


def test_a_signed_address_gets_into_no_message(
    registry: Registry, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    registry.cuts = deque([10_000, 8, 0, 0, 0, 0])
    with pytest.raises(PullError) as error:
        get(config)
    assert "signature" not in "".join(traceback.format_exception(error.value)) + caplog.text
