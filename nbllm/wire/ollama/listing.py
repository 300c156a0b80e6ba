"""What is told of models: `/api/tags`, `/api/ps` and `/api/show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.core import EngineInfo, ModelInfo
from nbllm.wire.ollama.answers import rfc3339

LATEST = "latest"
_UNITS = ((10**12, "T", 1), (10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0))
_KV_SHARE = {"q8_0": 17 / 32}  # of an f16 cache
_OTHER_SERVERS = ModelInfo(name="", path="", size_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A model under one of its names.

    Attributes:
        digest: 64 hexadecimal digits that change when the file does; of no file, and of no manifest.
        info: None for a model of another server.
        parent: the model that a preset is made from.
    """

    name: str
    digest: str
    modified_s: float
    info: ModelInfo | None
    parent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a person has said of a model.

    Attributes:
        modelfile: all of it, as a text.
        parameters: a line each.
        messages: role and content.
    """

    modelfile: str
    parameters: str = ""
    system: str = ""
    messages: Sequence[tuple[str, str]] = ()
    licenses: Sequence[str] = ()


def tagged(name: str) -> str:
    """With the tag that a name without one has; the colon of "host:80/name" begins no tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:{LATEST}"


def untagged(name: str) -> str:
    """Without the tag that goes without saying."""
    head, colon, tag = name.rpartition(":")
    return head if colon and head and tag.casefold() == LATEST else name


def tags_entry(model: Listed) -> dict[str, Any]:
    return {**_entry(model), "modified_at": rfc3339(model.modified_s)}


def ps_entry(model: Listed, engine: EngineInfo | None, expires_s: float) -> dict[str, Any]:
    """A model that is loaded; `size` is what it takes of the memory, its cache included."""
    entry = _entry(model)
    if engine is not None:
        cache = engine.kv_tokens * engine.model.kv_bytes_per_token * _KV_SHARE.get(engine.kv_type, 1.0)
        entry["size"] += int(cache)
    entry["size_vram"] = entry["size"] if engine is not None and engine.gpu_layers else 0
    entry["context_length"] = engine.context_length if engine is not None else 0
    entry["expires_at"] = rfc3339(expires_s)
    return entry


def show_body(
    model: Listed, metadata: Mapping[str, Any], capabilities: list[str], told: Told | None = None
) -> dict[str, Any]:
    """Everything about one model.

    Args:
        metadata: of the file; what is no scalar, text or short list of numbers is null, as Ollama has it.
        told: None of a model of which only its file tells.
    """
    template = metadata.get("tokenizer.chat_template")
    template = template if isinstance(template, str) else ""
    body = {
        "modelfile": _modelfile(model.name, template) if told is None else told.modelfile,
        "parameters": "" if told is None else told.parameters,
        "template": template,
        "details": _details(model.info or _OTHER_SERVERS, model.parent),
        "model_info": {key: _plain(value) for key, value in metadata.items() if key != "tokenizer.chat_template"},
        "capabilities": capabilities,
        "modified_at": rfc3339(model.modified_s),
    }
    if told is not None:
        body |= _said(told)
    license = "\n".join(told.licenses) if told is not None and told.licenses else metadata.get("general.license")
    return body | ({"license": license} if isinstance(license, str) else {})


def _said(told: Told) -> dict[str, Any]:
    messages = [{"role": role, "content": text} for role, text in told.messages]
    said: dict[str, Any] = {"system": told.system, "messages": messages}
    return {key: value for key, value in said.items() if value}


def _entry(model: Listed) -> dict[str, Any]:
    info = model.info or _OTHER_SERVERS
    name = tagged(model.name)
    return {
        "name": name,
        "model": name,
        "size": info.size_bytes,
        "digest": model.digest,
        "details": _details(info, model.parent),
    }


def _details(info: ModelInfo, parent: str) -> dict[str, Any]:
    return {
        "parent_model": tagged(parent) if parent else "",
        "format": "gguf" if info.path else "",
        "family": info.architecture,
        "families": [info.architecture] if info.architecture else [],
        "parameter_size": _size(info.parameters),
        "quantization_level": info.quantization,
    }


def _size(count: int) -> str:
    """134515008 as "134.52M"."""
    for unit, letter, digits in _UNITS:
        if count >= unit:
            return f"{count / unit:.{digits}f}{letter}"
    return str(count) if count else ""


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value - value != 0:  # infinity and nan are no JSON
        return None
    return value if isinstance(value, str | int | float | bool) else None


def _modelfile(name: str, template: str) -> str:
    """By the model's name: where its file lies is told to nobody."""
    lines = [f"FROM {tagged(name)}"]
    if template:
        fence = '"""' if '"""' not in template else '"'
        lines.append(f"TEMPLATE {fence}{template}{fence}")
    return "\n".join(lines) + "\n"
