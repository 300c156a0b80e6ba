"""`lora=`: which LoRA adapters a call is computed with.

lora="style.gguf"                                       a file, as it was trained
lora={"path": "style.gguf", "scale": 0.5}               at half its weight
lora={"id": 0, "scale": 0.5}                            the first one of the model's preset; its others are off
lora=["style.gguf", {"path": "facts.gguf"}]             the sum of both
lora=[]                                                 none, not even those of the preset
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nbllm.core import Adapter, Preset
from nbllm.core.numbers import Range
from nbllm.engine.adapters import AdapterCheck, AdapterFiles
from nbllm.errors import ParameterError

_FORMS = 'must be the path of a LoRA file, {"path": ..., "scale": ...}, {"id": 0, "scale": ...} or a list of them'
_KEYS = ("path", "id", "scale")


def adapters(value: object, own: Sequence[Adapter] | None = None) -> tuple[Adapter, ...] | None:
    """What a person typed, as adapters with absolute paths; None is nothing typed.

    Args:
        own: the adapters of the model's preset, which ids number; None where it is not known yet which model it is.

    Raises:
        ParameterError: it is none of these forms, or a number has no adapter.
    """
    if value is None:
        return None
    entries = value if isinstance(value, list | tuple) else [value]
    return tuple(_adapter(entry, own) for entry in entries)


def adapted(preset: Preset, path: str, lora: object) -> Preset:
    """The preset with these adapters in place of its own, all of them checked.

    Args:
        path: the file of its base.

    Raises:
        ParameterError: see `adapters`.
        ModelNotFoundError: a file is not there.
        ModelLoadError: one is damaged, or made for another model.
    """
    chosen = adapters(lora, preset.adapters) or ()
    AdapterFiles(AdapterCheck(path)).set_of(chosen)
    return replace(preset, adapters=chosen)


def _adapter(entry: object, own: Sequence[Adapter] | None) -> Adapter:
    if isinstance(entry, Adapter):
        return entry
    if isinstance(entry, str | os.PathLike):
        return Adapter(_absolute(entry))
    if not isinstance(entry, Mapping) or ("path" in entry) == ("id" in entry):
        raise ParameterError("lora", f"{_FORMS}, not {entry!r:.100}")
    for key in entry:
        if key not in _KEYS:
            raise ParameterError("lora", f"has no key {key!r:.100}; its keys are {', '.join(_KEYS)}")
    if "path" in entry:
        return Adapter(_absolute(entry["path"]), entry.get("scale", 1.0))
    return _numbered(entry, own)


def _numbered(entry: Mapping[str, Any], own: Sequence[Adapter] | None) -> Adapter:
    if own is None:
        raise ParameterError("lora", "the id of a preset's adapter goes with the model's own calls; give its path here")
    if not own:
        raise ParameterError("lora", "this model has no adapters of its own that an id could mean; give a path")
    ids = Range(int, 0, len(own) - 1, f"this model's adapters have the ids 0 to {len(own) - 1}")
    chosen = own[int(ids.checked("lora", entry["id"]))]
    return Adapter(chosen.path, entry.get("scale", chosen.scale))


def _absolute(path: object) -> str:
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes) or not str(path).strip():
        raise ParameterError("lora", f"{_FORMS}, not {path!r:.100}")
    return os.path.abspath(os.path.expanduser(path))
