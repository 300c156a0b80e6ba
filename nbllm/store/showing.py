"""What is known of one model: of its file, and of the preset if it is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from nbllm.config import Config
from nbllm.core import ModelInfo, SamplingParams
from nbllm.core.presets import Preset
from nbllm.core.sizes import size_text
from nbllm.errors import InvalidRequestError, ModelLoadError
from nbllm.store.catalog import described
from nbllm.store.gguf import GgufHeader, read_metadata
from nbllm.store.header import shown
from nbllm.store.home import at_home
from nbllm.store.known import known_models
from nbllm.store.names import resolve
from nbllm.store.parts import model_files
from nbllm.store.presets import modelfile, shelf

SOURCES: Mapping[str, str] = {
    "bundled": "a Python package",
    "nbllm": "the models folder",
    "folder": "a folder of models_dirs",
    "ollama": "Ollama",
    "huggingface": "the Hugging Face cache",
    "lmstudio": "LM Studio",
    "gpt4all": "GPT4All",
}
_LICENSE = ("general.license", "general.license.name", "general.license.link")
_SAMPLING = "general.sampling."
_TEMPLATE = "tokenizer.chat_template"
_MAX_LICENCE = 80


def facts(name: str, config: Config) -> dict[str, str]:
    """What there is to say of a model, by headings; what is not known is left out.

    Raises:
        ModelNotFoundError: there is no such model.
        InvalidRequestError: a preset cannot be used, and why.
    """
    meant = config.unaliased(name)
    if meant in config.endpoints:
        endpoint = config.endpoints[meant]
        said = {"name": meant, "model": endpoint.model or "", "source": f"another server, {endpoint.base_url}"}
    else:
        preset = shelf.find(meant, config)
        said = _of_file(meant, resolve(meant, config), config) if preset is None else _of_preset(preset, config)
    return {heading: text for heading, text in said.items() if text}


def facts_text(said: Mapping[str, str]) -> str:
    """As lines; what has several lines of its own comes last, below its heading."""
    short = {heading: text for heading, text in said.items() if "\n" not in text}
    width = max(map(len, short))
    lines = [f"{heading.ljust(width)}  {text}" for heading, text in short.items()]
    for heading, text in said.items():
        if heading not in short:
            lines += ["", f"{heading}:", *(f"  {line}".rstrip() for line in text.rstrip().split("\n"))]
    return "\n".join(lines)


def modelfile_text(name: str, config: Config) -> str:
    """A Modelfile that makes the same model again.

    Raises:
        ModelNotFoundError: there is no such model.
        InvalidRequestError: it is on another server.
    """
    meant = config.unaliased(name)
    if meant in config.endpoints:
        raise InvalidRequestError(f"{shown(meant)} is on another server, which a Modelfile cannot name")
    preset = shelf.find(meant, config)
    if preset is None:
        listed = _known_by(resolve(meant, config), config)
        preset = Preset(name=meant, base=listed.name if listed.source else listed.path)
    return modelfile.written(preset)


# ---- a file


def _of_file(name: str, path: Path, config: Config) -> dict[str, str]:
    info = _known_by(path, config)
    header = _header(path)
    return {
        "name": info.name if info.source else name,
        **_weights(info),
        "context": f"{info.context_length:,} tokens" if info.context_length else "",
        "licence": _licence(header),
        "template": _own_template(header),
        "parameters": ", ".join(
            f"{key.removeprefix(_SAMPLING)} {value}"
            for key, value in header.values.items()
            if key.startswith(_SAMPLING) and isinstance(value, int | float)
        ),
        **_place(info),
    }


def _known_by(path: Path, config: Config) -> ModelInfo:
    """By the name that the file is listed by; its own, and no source, where it is in no list."""
    for name, known in known_models(config).items():
        if known.path == path:
            return replace(described(path), name=name, source=known.source)
    return described(path)


def _header(path: Path) -> GgufHeader:
    """Of a file that cannot be read, none of what it says; why is in the ModelInfo."""
    try:
        return read_metadata(path)
    except ModelLoadError:
        return GgufHeader(path, 0, 0, 0, {})


def _weights(info: ModelInfo) -> dict[str, str]:
    num_files = len(model_files(Path(info.path)).paths)
    return {
        "architecture": info.architecture,
        "weights": _count_text(info.parameters),
        "quantization": info.quantization,
        "size": size_text(info.size_bytes) + (f" in {num_files} files" if num_files > 1 else ""),
    }


def _count_text(count: int) -> str:
    if not count:
        return ""
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"


def _licence(header: GgufHeader) -> str:
    return ", ".join(shown(text) for key in _LICENSE if (text := header.text(key).strip()))


def _own_template(header: GgufHeader) -> str:
    text = header.text(_TEMPLATE)
    return f"the model's own, {len(text):,} characters of Jinja" if text.strip() else "the model has none"


def _place(info: ModelInfo) -> dict[str, str]:
    return {"source": SOURCES.get(info.source, ""), "path": at_home(info.path), "problem": info.problem}


# ---- a preset


def _of_preset(preset: Preset, config: Config) -> dict[str, str]:
    resolved = shelf.flattened(preset, config)
    whole, info, header = resolved.preset, _known_by(resolved.path, config), _header(resolved.path)
    licences = [_first_line(text) for text in whole.licenses]
    return {
        "name": preset.name,
        "made of": preset.base,
        **_weights(info),
        "context": _context(whole, info),
        "threads": str(whole.threads or ""),
        "licence": ", ".join(licences) or _licence(header),
        "template": _template(whole, header),
        "parameters": _sampling_text(whole.sampling),
        "without effect": ", ".join(f"{name} {value}" for name, value in whole.ignored.items()),
        "adapters": ", ".join(f"{at_home(one.path)} x {one.scale:g}" for one in whole.adapters),
        "examples": f"{len(whole.messages)} messages go before each chat" if whole.messages else "",
        "problem": info.problem,
        "source": "a preset",
        "path": at_home(shelf.file_of(preset.name, config) or ""),
        "system": whole.system or "",
    }


def _context(preset: Preset, info: ModelInfo) -> str:
    trained = f"{info.context_length:,} tokens" if info.context_length else ""
    if preset.context_length is None:
        return trained
    length = min(preset.context_length, info.context_length or preset.context_length)
    return f"{length:,} tokens" + (f" of the {trained} that it was trained for" if trained else "")


def _template(preset: Preset, header: GgufHeader) -> str:
    if preset.template is not None:
        return f"the preset's, {len(preset.template):,} characters of Jinja"
    if preset.go_template is not None:
        return f"{_own_template(header)}; the preset's is in Ollama's language, which is not used"
    return _own_template(header)


def _sampling_text(sampling: SamplingParams) -> str:
    usual = SamplingParams()
    said = {spec.name: getattr(sampling, spec.name) for spec in fields(sampling)}
    return ", ".join(f"{name} {_value_text(value)}" for name, value in said.items() if value != getattr(usual, name))


def _value_text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(json.dumps(one, ensure_ascii=False) for one in value)
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _first_line(text: str) -> str:
    line = next((line.strip() for line in text.split("\n") if line.strip()), "")
    return line if len(line) <= _MAX_LICENCE else f"{line[: _MAX_LICENCE - 1]}…"
