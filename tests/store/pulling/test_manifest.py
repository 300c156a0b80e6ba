from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.store.pulling import PullError
from nbllm.store.pulling.errors import UnusableError
from nbllm.store.pulling.manifest import Layer, read_manifest

DIGEST = "sha256:" + "0123456789abcdef" * 4


def layer(kind: str = "model", **changes: Any) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": DIGEST, "size": 10, **changes}


def manifest(*layers: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": {}, "layers": layers}).encode()


def test_layers_by_their_kinds() -> None:
    read = read_manifest(
        manifest(
            layer(), layer("license"), layer("license", size=0), layer(mediaType="text/plain; x=y"), {**layer("x")}
        ),
        "m",
    )
    assert read.of("model") == (Layer("model", DIGEST, 10),)
    assert [one.size for one in read.of("license")] == [10, 0]
    assert read.of("system") == ()
    assert read.unknown == ("text/plain", "x")
    assert read.of("model")[0].sha256 == DIGEST.removeprefix("sha256:")


@pytest.mark.parametrize("kind", ["model; version=1", "model "])
def test_parameters_of_a_media_type_count_for_nothing(kind: str) -> None:
    assert read_manifest(manifest(layer(kind)), "m").of("model")


def test_where_a_layer_came_from_is_not_looked_at() -> None:
    read = read_manifest(manifest(layer(**{"from": "/etc/passwd"})), "m")
    assert read.of("model") == (Layer("model", DIGEST, 10),)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        pytest.param([layer(digest="sha256:" + "0" * 63)], "which is no SHA-256", id="short"),
        pytest.param([layer(digest=DIGEST.upper())], "which is no SHA-256", id="upper case"),
        pytest.param([layer(digest="sha256:../../../../etc/passwd")], "which is no SHA-256", id="outside"),
        pytest.param([layer(digest="sha512:" + "0" * 128)], "which is no SHA-256", id="another hash"),
        pytest.param([layer(digest=7)], "which is no SHA-256", id="number"),
        pytest.param([layer(digest=DIGEST + "\n")], "which is no SHA-256", id="line"),
        pytest.param([layer(size=-1)], "a layer of -1 bytes", id="negative"),
        pytest.param([layer(size=2**60)], "a layer of 1152921504606846976 bytes", id="absurd"),
        pytest.param([layer(size=10**400)], "a layer of 1000", id="long"),
        pytest.param([layer(size=True)], "a layer of True bytes", id="bool"),
        pytest.param([layer(size="10")], "a layer of '10' bytes", id="text"),
        pytest.param([layer(size=1.5)], "a layer of 1.5 bytes", id="fraction"),
        pytest.param([layer(size=0)], "an empty model", id="empty model"),
        pytest.param([layer(), layer("adapter", size=0)], "an empty adapter", id="empty adapter"),
        pytest.param([layer(), layer("system", size=1 << 20)], "texts of 1,048,576 bytes", id="long text"),
        pytest.param([layer(), *[layer("license", size=1 << 18)] * 3], "texts of 786,432 bytes", id="long texts"),
        pytest.param([layer()] * 101, "has 101 layers", id="101 layers"),
        pytest.param([layer()] * 10_000, "has 10,000 layers", id="10,000 layers"),
        pytest.param([layer(urls=["https://elsewhere.example/x"])], "outside of the registry", id="urls"),
        pytest.param([layer(mediaType=None)], "without a media type", id="no media type"),
        pytest.param([7], "a layer that is no object", id="no object"),
    ],
)
def test_a_hostile_layer_is_refused(layers: list[object], says: str) -> None:
    with pytest.raises(PullError, match=r"^m cannot be pulled: the registry's manifest") as refused:
        read_manifest(manifest(*layers), "m")
    assert says in str(refused.value)
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        pytest.param([], "the registry has no GGUF", id="none"),
        pytest.param([layer("license")], "the registry has no GGUF", id="in the cloud"),
        pytest.param([layer(), layer()], "the registry has 2 GGUF files", id="two"),
        pytest.param([layer("tensor")] * 3, "safetensors", id="safetensors"),
    ],
)
def test_what_llama_cpp_has_no_file_of(layers: list[object], says: str) -> None:
    with pytest.raises(UnusableError, match=rf"^llama\.cpp cannot load m: .*{says}"):
        read_manifest(manifest(*layers), "m")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"7", b"null", b'{"layers": {}}', b'{"layers": null}', b"[" * 100_000, b"\xff", b"9" * 10_000],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(PullError, match="the registry's manifest"):
        read_manifest(data, "m")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["layers", "digest", "size"]), inner),
    max_leaves=8,
)


@settings(max_examples=30)
@given(_JSON)
def test_any_json_is_a_manifest_or_refused(value: object) -> None:
    with pytest.raises(PullError):
        read_manifest(json.dumps(value).encode(), "m")
    with pytest.raises(PullError):
        read_manifest(json.dumps({"layers": [value]}).encode(), "m")
