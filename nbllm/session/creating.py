"""Making a preset of what a person wrote: a file, a text below a magic, or options on a line."""

from __future__ import annotations

import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbllm.chat.trial import check_template
from nbllm.config import Config
from nbllm.core import RANGES, unknown_option
from nbllm.core.adapters import Adapter
from nbllm.core.presets import Preset
from nbllm.engine.adapters import AdapterCheck, AdapterFiles
from nbllm.errors import InvalidRequestError, ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.store.catalog import described
from nbllm.store.files import beginning
from nbllm.store.header import shown
from nbllm.store.presets import modelfile, naming, params, places, shelf, templates, tomlfile

MAX_FILE_BYTES = 1 << 22
_TEXTS = ("from", "system", "template", "adapter", "license")
"""The options that are no parameters."""
_KNOWN = (*_TEXTS, "stop", *RANGES, *params.OLLAMAS, *params.OLLAMAS.values(), *sorted(params.WITHOUT_EFFECT))
_REPEATED = ("adapter", "license", "stop")
_EXAMPLE = 'from=smollm2 system="..." temperature=0.2'


@dataclass(frozen=True, slots=True)
class Created:
    """A preset that was saved, perhaps over another of its name, and what else is to be said of it."""

    preset: Preset
    replaced: bool
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        instead = ", in place of the preset that had this name" if self.replaced else ""
        return "\n".join([f"{self.preset.name} is made of {self.preset.base}{instead}", *self.notes])


def from_file(name: str, path: Path, config: Config) -> Created:
    """From a Modelfile, or from TOML where the file's name says so; its paths are relative to its folder.

    Raises:
        InvalidRequestError: it cannot be read, or is wrong; the message has the line.
        ModelError: what it is made of is not there, or cannot be used.
    """
    path = Path(os.path.expanduser(path))  # that of pathlib raises for ~nobody
    text, folder = _read(path), path.absolute().parent
    is_toml = path.suffix.casefold() == ".toml"
    parse = tomlfile.parse if is_toml else modelfile.parse
    return _saved(parse(text, name=naming.preset_name(name), folder=folder), config)


def from_modelfile(name: str, text: str, folder: Path, config: Config) -> Created:
    """From the text of a Modelfile, whose paths are relative to `folder`. Raises as `from_file`."""
    return _saved(modelfile.parse(text, name=naming.preset_name(name), folder=folder), config)


def from_options(name: str, words: Sequence[str], folder: Path, config: Config) -> Created:
    """From `from=MODEL` and other NAME=VALUE words, whose paths are relative to `folder`.

    Raises:
        InvalidRequestError: a word is none, or its value is wrong.
        ModelError: as of `from_file`.
    """
    given = _given(words)
    if "from" not in given:
        raise InvalidRequestError(f"from=MODEL is missing: a preset is made of a model, {_EXAMPLE}")
    jinja, go = templates.split(given["template"][0]) if "template" in given else (None, None)
    read = params.read(
        {option: texts if option in _REPEATED else texts[0] for option, texts in given.items() if option not in _TEXTS}
    )
    preset = Preset(
        name=naming.preset_name(name),
        base=places.base(given["from"][0], folder),
        system=given["system"][0] if "system" in given else None,
        sampling=read.sampling,
        template=jinja,
        go_template=go,
        adapters=tuple(Adapter(places.adapter(text, folder)) for text in given.get("adapter", ())),
        context_length=read.context_length,
        threads=read.threads,
        licenses=tuple(given.get("license", ())),
        ignored=read.ignored,
    )
    return _saved(preset, config)


def _given(words: Sequence[str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for word in words:
        typed, equals, text = word.partition("=")
        name = typed.lower()
        if not equals or not name:
            raise InvalidRequestError(f"a preset takes options as NAME=VALUE, {_EXAMPLE}; not {shown(word)!r}")
        if name not in _KNOWN:
            raise ParameterError(shown(name), unknown_option(name[:100], _KNOWN))
        if name in given and name not in _REPEATED:
            raise ParameterError(shown(name), "is there twice; leave one of them out")
        given.setdefault(name, []).append(text)
    return given


def _saved(preset: Preset, config: Config) -> Created:
    _check_file(preset.base, "a model in GGUF")
    for adapter in preset.adapters:
        _check_file(adapter.path, "a LoRA adapter in GGUF")
    whole = shelf.flattened(preset, config)  # what it is made of has to be there
    problem = described(whole.path).problem
    if problem:
        raise ModelLoadError(f"{shown(preset.base)} cannot be loaded: {problem}")
    if preset.template is not None:
        check_template(preset.template)
    AdapterFiles(AdapterCheck(str(whole.path))).set_of(whole.preset.adapters)
    replaced = shelf.file_of(preset.name, config) is not None
    shelf.save(preset, config)
    notes = [f"{name} has no effect here" for name in preset.ignored]
    if preset.go_template is not None:
        notes.append(templates.GO_NOTE)
    return Created(preset, replaced, tuple(notes))


def _check_file(place: str, what: str) -> None:
    """Where a path was typed, a file has to be there. Raises ModelNotFoundError."""
    path = Path(place)
    if path.is_absolute() and not os.path.exists(path):  # never raises
        raise ModelNotFoundError(f"there is no file {shown(path)}: give the path of {what}")
    if path.is_absolute() and os.path.isdir(path):
        raise ModelNotFoundError(f"{shown(path)} is a folder: give the path of {what}")


def _read(path: Path) -> str:
    try:
        data = beginning(path, MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise InvalidRequestError(f"{shown(path)} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if len(data) > MAX_FILE_BYTES:
        raise InvalidRequestError(f"{shown(path)} is too large for a Modelfile; to make a model of a GGUF: from={path}")
    try:
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidRequestError(f"{shown(path)} is not UTF-8 text, which a Modelfile is") from exc
    return text.replace("\r\n", "\n")  # as an editor on Windows ends lines
