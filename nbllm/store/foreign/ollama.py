"""Ollama's folder.

    manifests/HOST/NAMESPACE/MODEL/TAG    {"layers": [{"mediaType": "...", "digest": "sha256:..."}, ...]}
    blobs/sha256-...                      the layers

Of a manifest's layers, only the one with the weights is looked for: a LoRA adapter, a projector, parameters, a system
prompt and a template are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nbllm.store.foreign.look import MAX_ENTRIES, Entry, Look

MAX_MANIFEST_BYTES = 1 << 20
_USUAL_HOST, _USUAL_NAMESPACE, _USUAL_TAG = "registry.ollama.ai", "library", "latest"
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_WEIGHTS = "application/vnd.ollama.image.model"


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The SHA-256 of the weights in hexadecimal, or what is wrong."""

    weights: str = ""
    problem: str = ""


def ollama_models(look: Look) -> dict[str, Entry]:
    """By Ollama's own names, as short as they can be: "llama3.2", "llama3.2:1b", "someone/model:tag"."""
    return {name: _entry(look, path) for name, path in _manifests(look)}


def short_name(name: str) -> str:
    """Without what Ollama adds where it is left out: its registry, "library", and the tag "latest"."""
    text = name.removeprefix(f"{_USUAL_HOST}/").removeprefix(f"{_USUAL_NAMESPACE}/")
    return text.removesuffix(f":{_USUAL_TAG}")


def _manifests(look: Look) -> Iterator[tuple[str, Path]]:
    """Those at the right depth and with names that Ollama could have given."""
    hosts = [host for host in look.subfolders(look.folder / "manifests") if _HOST.fullmatch(host.name)]
    namespaces = [namespace for host in hosts for namespace in _parts(look, host)]
    models = [model for namespace in namespaces for model in _parts(look, namespace)]
    num_found = 0
    for model in models:
        for tag in look.entries(model):
            num_found += 1
            if num_found > MAX_ENTRIES:
                return
            if _PART.fullmatch(tag.name) and not tag.is_dir(follow_symlinks=False):
                names = model.parent.parent.name, model.parent.name, model.name
                yield short_name(f"{'/'.join(names)}:{tag.name}"), model / tag.name


def _parts(look: Look, folder: Path) -> list[Path]:
    return [below for below in look.subfolders(folder) if _PART.fullmatch(below.name)]


def _entry(look: Look, path: Path) -> Entry:
    manifest = _manifest(look, path)
    if manifest.problem:
        return Entry(path, manifest.problem)
    blob = look.folder / "blobs" / f"sha256-{manifest.weights}"
    problem = look.problem_of(blob)
    return Entry(blob, problem and f"its blob sha256:{manifest.weights[:12]} {problem}")


def _manifest(look: Look, path: Path) -> _Manifest:
    problem = look.problem_of(path)
    if problem:
        return _Manifest(problem=f"its manifest {problem}")
    try:
        return _parsed(look.beginning(path, MAX_MANIFEST_BYTES + 1))
    except OSError as exc:
        return _Manifest(problem=f"its manifest cannot be read: {exc.strerror or type(exc).__name__}")


def _parsed(data: bytes) -> _Manifest:
    if len(data) > MAX_MANIFEST_BYTES:
        return _Manifest(problem=f"its manifest has more than {MAX_MANIFEST_BYTES:,} bytes")
    import json

    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        return _Manifest(problem="its manifest is not JSON")
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list):
        return _Manifest(problem="its manifest has no list of layers")
    return _of_layers([layer.get("digest") for layer in layers if _has_weights(layer)])


def _has_weights(layer: object) -> bool:
    kind = layer.get("mediaType") if isinstance(layer, dict) else None
    return isinstance(kind, str) and kind.partition(";")[0].strip() == _WEIGHTS


def _of_layers(digests: list[object]) -> _Manifest:
    if not digests:
        return _Manifest(problem="its manifest names no GGUF: Ollama runs it elsewhere, or from another format")
    if len(digests) > 1:
        return _Manifest(problem=f"its manifest names {len(digests)} GGUF files, of which llama.cpp could load one")
    match = _DIGEST.fullmatch(digests[0]) if isinstance(digests[0], str) else None
    if match is None:
        return _Manifest(problem=f"its manifest names a blob by {digests[0]!r:.40}, which is no SHA-256")
    return _Manifest(match[1])
