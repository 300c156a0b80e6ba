"""Stores as the other programs leave them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.store import gguf_writer as g

WEIGHTS = "application/vnd.ollama.image.model"
TINY = g.tiny_model()
COMMIT = "a" * 40
OLDER = "b" * 40


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def manifest(*digests: object) -> bytes:
    layers = [{"mediaType": WEIGHTS, "digest": digest, "size": 1} for digest in digests]
    others = [{"mediaType": "application/vnd.ollama.image.template", "digest": digest_of(b"t"), "size": 1}]
    return json.dumps({"schemaVersion": 2, "config": {"digest": digest_of(b"c")}, "layers": others + layers}).encode()


def ollama_manifest(store: Path, name: str, data: bytes) -> Path:
    """The name is registry/namespace/model/tag."""
    return g.write(store / "manifests" / name, data)


def ollama_blob(store: Path, data: bytes) -> Path:
    return g.write(store / "blobs" / digest_of(data).replace(":", "-"), data)


def ollama_model(store: Path, name: str = "registry.ollama.ai/library/llama3.2/1b", data: bytes = TINY) -> Path:
    ollama_manifest(store, name, manifest(digest_of(data)))
    return ollama_blob(store, data)


def hub_file(
    store: Path, file: str, data: bytes = TINY, *, repository: str = "org--tiny-GGUF", commit: str = COMMIT
) -> Path:
    """A link in a snapshot to a blob of its own."""
    folder = store / f"models--{repository}"
    name = hashlib.sha256(data + file.encode()).hexdigest()
    blob = g.write(folder / "blobs" / name, data)
    link = folder / "snapshots" / commit / file
    link.parent.mkdir(parents=True, exist_ok=True)
    up = "../" * (2 + file.count("/"))
    link.symlink_to(f"{up}blobs/{blob.name}")
    return link


def hub_main(store: Path, commit: str, *, repository: str = "org--tiny-GGUF") -> None:
    g.write(store / f"models--{repository}" / "refs" / "main", commit.encode())
