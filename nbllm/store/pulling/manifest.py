"""What Ollama's registry says of a model.

    {"schemaVersion": 2, "config": {...},
     "layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:...", "size": 123}, ...]}

The kinds of layers are model, projector, adapter, template, system, params, messages and license.
"""

from __future__ import annotations

from dataclasses import dataclass

from nbllm.store.blobs import is_digest
from nbllm.store.header import shown
from nbllm.store.pulling.errors import UnusableError
from nbllm.store.remote.errors import PullError

MAX_MANIFEST_BYTES = 1 << 20
MAX_LAYERS = 100
MAX_LAYER_BYTES = 1 << 44
TEXTS = ("params", "template", "system", "messages", "license")
"""The kinds that are read into memory, and become a preset."""
MAX_TEXT_BYTES = 1 << 19
"""Of all of them together: a preset may not have a million characters."""
WEIGHTS = ("model", "adapter", "projector")
_PREFIX = "application/vnd.ollama.image."


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob; `kind` is what stands after Ollama's prefix, or the whole of another media type."""

    kind: str
    digest: str
    size: int

    @property
    def sha256(self) -> str:
        return self.digest.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class Manifest:
    layers: tuple[Layer, ...]

    def of(self, kind: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.kind == kind)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The kinds that mean nothing here, each once."""
        kinds = (layer.kind for layer in self.layers if layer.kind not in (*WEIGHTS, *TEXTS))
        return tuple(dict.fromkeys(kinds))


def read_manifest(data: bytes, name: str) -> Manifest:
    """Check a manifest, which anybody may have written.

    Raises:
        PullError: it is none, or nothing that can be got safely.
        UnusableError: it is one of a model that llama.cpp has no file of, or several.
    """
    layers = tuple(_layer(entry, name) for entry in _entries(data, name))
    manifest = Manifest(layers)
    num_models = len(manifest.of("model"))
    if any(layer.kind == "tensor" for layer in layers):
        raise UnusableError(f"llama.cpp cannot load {name}: it is kept as safetensors, not as a GGUF")
    if num_models != 1:
        found = f"{num_models} GGUF files, of which it could load one" if num_models else "no GGUF"
        raise UnusableError(f"llama.cpp cannot load {name}: the registry has {found}")
    _check_sizes(layers, name)
    return manifest


def _entries(data: bytes, name: str) -> list[object]:
    import json

    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        raise _wrong(name, "is not JSON") from None
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list):
        raise _wrong(name, "has no list of layers")
    if len(layers) > MAX_LAYERS:
        raise _wrong(name, f"has {len(layers):,} layers; {MAX_LAYERS} are the most")
    return layers


def _layer(entry: object, name: str) -> Layer:
    if not isinstance(entry, dict):
        raise _wrong(name, "has a layer that is no object")
    media_type, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
    if not isinstance(media_type, str):
        raise _wrong(name, "has a layer without a media type")
    if not isinstance(digest, str) or not is_digest(digest):
        raise _wrong(name, f"names a layer by {digest!r:.80}, which is no SHA-256")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_LAYER_BYTES:
        raise _wrong(name, f"has a layer of {size!r:.40} bytes")
    if entry.get("urls"):
        raise _wrong(name, "has a layer that is kept outside of the registry")
    return Layer(media_type.partition(";")[0].strip().removeprefix(_PREFIX), digest, size)


def _check_sizes(layers: tuple[Layer, ...], name: str) -> None:
    text_bytes = sum(layer.size for layer in layers if layer.kind in TEXTS)
    if text_bytes > MAX_TEXT_BYTES:
        raise _wrong(name, f"has texts of {text_bytes:,} bytes; {MAX_TEXT_BYTES:,} are the most")
    for layer in layers:
        if layer.kind in WEIGHTS and not layer.size:
            raise _wrong(name, f"has an empty {layer.kind}")


def _wrong(name: str, what: str) -> PullError:
    return PullError(f"{name} cannot be pulled: the registry's manifest {shown(what)}")
