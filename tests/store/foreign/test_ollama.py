from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.store.foreign.look import Entry, Look
from nbllm.store.foreign.ollama import MAX_MANIFEST_BYTES, ollama_models, short_name
from tests.store import gguf_writer as g
from tests.store.foreign.made import TINY, WEIGHTS, digest_of, manifest, ollama_blob, ollama_manifest, ollama_model

USUAL = "registry.ollama.ai/library/llama3.2/1b"
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX")


def models(folder: Path) -> dict[str, Entry]:
    return ollama_models(Look(folder))


def only(folder: Path) -> Entry:
    (entry,) = models(folder).values()
    return entry


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("registry.ollama.ai/library/llama3.2/latest", "llama3.2"),
        ("registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
        ("registry.ollama.ai/someone/model/latest", "someone/model"),
        ("registry.ollama.ai/someone/model/q4_K_M", "someone/model:q4_K_M"),
        ("hf.co/org/Tiny-GGUF/Q4_K_M", "hf.co/org/Tiny-GGUF:Q4_K_M"),
        pytest.param("localhost:5000/library/a/b", "localhost:5000/library/a:b", marks=posix),
    ],
)
def test_model_has_ollamas_name(place: str, name: str, tmp_path: Path) -> None:
    blob = ollama_model(tmp_path, place)

    assert models(tmp_path) == {name: Entry(blob)}


@pytest.mark.parametrize(
    "text", ["llama3.2:1b", "library/llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b"], ids=str
)
def test_short_name_leaves_out_what_may_be(text: str) -> None:
    assert short_name(text) == "llama3.2:1b"


@pytest.mark.parametrize(
    "place",
    [
        "registry.ollama.ai/library/llama3.2/.hidden",
        "registry.ollama.ai/library/a b/latest",
        "registry.ollama.ai/library/llama3.2/1b/deeper",
        "registry.ollama.ai/library/shallow",
        "registry.ollama.ai/library/-a/latest",
        pytest.param("registry.ollama.ai/library/a\nb/latest", marks=posix),
        "registry.ollama.ai/library/" + "a" * 81 + "/latest",
    ],
    ids=ascii,
)
def test_what_ollama_could_not_have_named_is_left_out(place: str, tmp_path: Path) -> None:
    ollama_model(tmp_path, place)

    assert models(tmp_path) == {}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "its manifest is not JSON", id="empty"),
        pytest.param(b"\xff{}", "its manifest is not JSON", id="not-utf8"),
        pytest.param(b"[" * 100_000, "its manifest is not JSON", id="nested"),
        pytest.param(b"[]", "no list of layers", id="list"),
        pytest.param(b'{"layers": {}}', "no list of layers", id="layers-no-list"),
        pytest.param(b'{"layers": [null, 5, {"mediaType": 5}]}', "names no GGUF", id="layers-no-tables"),
        pytest.param(manifest(), "names no GGUF", id="no-weights"),
        pytest.param(manifest(digest_of(b"1"), digest_of(b"2")), "names 2 GGUF files", id="two"),
        pytest.param(manifest(None), "by None, which is no SHA-256", id="no-digest"),
        pytest.param(manifest("sha256:../../../etc/passwd"), "which is no SHA-256", id="traversal"),
        pytest.param(manifest(digest_of(b"1").upper()), "which is no SHA-256", id="capitals"),
        pytest.param(manifest(digest_of(b"1") + "\n"), "which is no SHA-256", id="line-end"),
        pytest.param(manifest(digest_of(b"1")), f"its blob {digest_of(b'1')[:19]} is not there", id="no-blob"),
        pytest.param(b" " * (MAX_MANIFEST_BYTES + 1), "more than 1,048,576 bytes", id="large"),
    ],
)
def test_damaged_manifest_is_told(data: bytes, problem: str, tmp_path: Path) -> None:
    ollama_manifest(tmp_path, USUAL, data)

    entry = only(tmp_path)

    assert problem in entry.problem
    assert str(tmp_path) not in entry.problem


def test_layers_type_may_have_parameters(tmp_path: Path) -> None:
    layer = {"mediaType": f"{WEIGHTS}; type=gguf", "digest": digest_of(TINY)}
    ollama_manifest(tmp_path, USUAL, json.dumps({"layers": [layer]}).encode())

    blob = ollama_blob(tmp_path, TINY)

    assert only(tmp_path) == Entry(blob)


@posix
def test_blob_may_be_a_link_inside_the_store_only(tmp_path: Path) -> None:
    store = tmp_path / "store"
    blob = ollama_model(store)
    elsewhere = g.write(tmp_path / "elsewhere", TINY)
    inside = blob.rename(store / "blobs" / "moved")

    blob.symlink_to(inside)
    assert only(store) == Entry(blob)

    blob.unlink()
    blob.symlink_to(elsewhere)
    assert "leads out of its store" in only(store).problem

    blob.unlink()
    blob.symlink_to("nothing")
    assert "leads nowhere" in only(store).problem


@posix
def test_folder_of_blobs_that_leads_out(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ollama_model(store)
    (store / "blobs").rename(tmp_path / "blobs")
    (store / "blobs").symlink_to(tmp_path / "blobs")

    assert "leads out of its store" in only(store).problem


@posix
def test_store_itself_may_be_a_link(tmp_path: Path) -> None:
    ollama_model(tmp_path / "disk")
    (tmp_path / "store").symlink_to(tmp_path / "disk")

    assert only(tmp_path / "store").problem == ""


@posix
def test_manifest_that_leads_out_is_not_read(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ollama_model(store)
    there = store / "manifests" / USUAL
    there.rename(tmp_path / "manifest")
    there.symlink_to(tmp_path / "manifest")

    assert only(store) == Entry(there, only(store).problem)
    assert "its manifest is a link that leads out" in only(store).problem


@posix
def test_manifest_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "manifests" / USUAL
    path.parent.mkdir(parents=True)
    os.mkfifo(path)

    assert only(tmp_path).problem == "its manifest is not a file"


def test_blob_that_is_a_folder(tmp_path: Path) -> None:
    ollama_manifest(tmp_path, USUAL, manifest(digest_of(b"")))
    (tmp_path / "blobs" / digest_of(b"").replace(":", "-")).mkdir(parents=True)

    assert "is not a file" in only(tmp_path).problem


def test_store_that_is_not_there(tmp_path: Path) -> None:
    assert models(tmp_path / "none") == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.integers() | st.sampled_from([WEIGHTS, digest_of(TINY), "../x"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["layers", "mediaType", "digest"]), inner, max_size=3)
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_manifest_is_a_model_or_a_problem(tmp_path: Path, data: bytes) -> None:
    blob = ollama_blob(tmp_path, TINY)
    ollama_manifest(tmp_path, USUAL, data)

    entry = only(tmp_path)

    assert entry.problem.isprintable()
    assert entry.problem or entry == Entry(blob)
