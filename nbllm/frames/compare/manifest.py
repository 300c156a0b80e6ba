"""What a comparison was made of and with: plain JSON, in `frame.attrs["nbllm"]`, enough to run it again.

    {"format": "nbllm-compare", "version": 1, "run_id": "...", "created_at": "2026-01-01T00:00:00+00:00",
     "models": [{"name", "spec", "path", "file_hash", "template_hash", "preset_hash", "architecture", "quantization",
                 "size_bytes", "context_length", "summary", "error"}],
     "inputs": {"prompts", "params", "data", "system", "response_format", "repeat", "seed", "scorers", "expected",
                "judge", "order", "limit"},
     "versions": {"nbllm", "llama-cpp-python", "python", "pandas", "numpy", "platform"},
     "machine": {"processor", "cores", "llama.cpp"}, "expected": "var_..."}

`data` is the table by columns, as JSON text: pandas copies attrs deeply with each operation, and a text costs nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbllm.errors import NbllmError, ParameterError
from nbllm.frames.compare.columns import ATTRS
from nbllm.session.cachekey import preset_key
from nbllm.session.model import Model
from nbllm.store import read_metadata

FORMAT, VERSION = "nbllm-compare", 1
_DISTRIBUTIONS = ("llama-cpp-python", "pandas", "numpy")
_TEMPLATE = "tokenizer.chat_template"


def manifest_of(source: Any) -> dict[str, Any]:
    """The manifest of a frame, of a file, or itself.

    Raises:
        ParameterError: there is none, or it is of a later nbllm.
    """
    if isinstance(source, str | Path):
        return load_manifest(source)
    manifest = source if isinstance(source, Mapping) else getattr(source, "attrs", {}).get(ATTRS)
    if not isinstance(manifest, Mapping) or manifest.get("format") != FORMAT:
        raise ParameterError(
            "manifest", "is none: give a frame of nbllm.compare, its frame.attrs['nbllm'], or the file it was saved to"
        )
    if manifest.get("version") != VERSION:
        raise ParameterError("manifest", f"is of version {manifest.get('version')!r:.20}, which needs another nbllm")
    return dict(manifest)


def save_manifest(source: Any, path: str | Path) -> Path:
    """Write the manifest of a frame as JSON.

    Raises:
        ParameterError: there is none, or the file cannot be written.
    """
    manifest, target = manifest_of(source), Path(path).expanduser()
    data = json.dumps(manifest, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass")
    try:
        target.write_bytes(data)
    except OSError as error:
        raise ParameterError("path", f"{str(target)!r:.200} cannot be written: {error.strerror or error}") from error
    return target


def load_manifest(path: str | Path) -> dict[str, Any]:
    """Read what `save_manifest` wrote.

    Raises:
        ParameterError: there is no such file, or it is something else.
    """
    try:
        found = json.loads(Path(path).expanduser().read_bytes().decode("utf-8", "surrogatepass"))
    except (OSError, ValueError, RecursionError) as error:
        problem = getattr(error, "strerror", None) or "it is no JSON"
        raise ParameterError("manifest", f"{str(path)!r:.200} cannot be read: {problem}") from error
    return manifest_of(found if isinstance(found, dict) else {})


def versions() -> dict[str, str]:
    """Of all that shapes an answer or the frame."""
    from nbllm._version import __version__

    return {
        "nbllm": __version__,
        **{name: _version(name) for name in _DISTRIBUTIONS},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def machine() -> dict[str, Any]:
    """The processor, and what llama.cpp's build makes of it: "" in a process that has loaded no model itself."""
    return {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "llama.cpp": _build()}


def described(name: str, spec: Any, model: Model | None, file_hash: str, error: str | None) -> dict[str, Any]:
    """A model's entry.

    Args:
        model: None when there is no such model.
    """
    entry: dict[str, Any] = {"name": name, "spec": None if isinstance(spec, Model) else os.fspath(spec)}
    entry.update({"path": "", "file_hash": file_hash, "template_hash": "", "preset_hash": "", "error": error})
    if model is None:
        return entry
    info = model.info.model
    path = os.path.abspath(info.path) if info.path else ""
    entry.update({"path": path, "template_hash": template_hash(path) if file_hash else ""})
    entry["preset_hash"] = preset_hash(model)
    entry.update({key: getattr(info, key) for key in ("architecture", "quantization", "size_bytes")})
    return {**entry, "context_length": model.info.context_length or None, "summary": model.info.summary}


def preset_hash(model: Model) -> str:
    """Of what the model's preset does to requests, "" when it has none, or an adapter is gone."""
    try:
        return preset_key(model.preset)
    except NbllmError:
        return ""


def template_hash(path: str) -> str:
    """The SHA-256 of a file's chat template, "" when it has none."""
    import hashlib

    try:
        text = read_metadata(path, wanted={_TEMPLATE}).text(_TEMPLATE)
    except (NbllmError, OSError):
        return ""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else ""


def _build() -> str:
    bound = sys.modules.get("nbllm.llama.library")
    if bound is None:
        return ""
    try:
        return str(bound.library().build)
    except NbllmError:  # in a forked child
        return ""


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
