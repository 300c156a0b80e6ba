"""What stands above the conversation: its name and the others', the models, how full the context is, the settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.core import RANGES
from nbllm.core.sizes import size_text
from nbllm.engine.defaults import STATED
from nbllm.markup.characters import normalized

if TYPE_CHECKING:
    from nbllm.core import ModelInfo
    from nbllm.notebook.models import Models
    from nbllm.notebook.widget.talk import Talk

_LARGE = 2**20
"""A limit above this is none for a person, and a form that shows it says nothing."""


class _Setting(NamedTuple):
    name: str
    label: str
    kind: str = ""
    help: str = ""
    step: float | None = None


_SETTINGS = (
    _Setting("system", "System prompt", "text", "what the model is told before the conversation"),
    _Setting("temperature", "Temperature", step=0.1),
    _Setting("max_tokens", "Most tokens of an answer"),
    _Setting("seed", "Seed"),
    _Setting("top_p", "Top p", step=0.05),
    _Setting("top_k", "Top k"),
    _Setting("min_p", "Min p", step=0.01),
    _Setting("repeat_penalty", "Repeat penalty", step=0.05),
    _Setting("presence_penalty", "Presence penalty", step=0.1),
    _Setting("frequency_penalty", "Frequency penalty", step=0.1),
    _Setting("stop", "Stop at", "lines", "texts that end the answer, one a line"),
)


class Listed(NamedTuple):
    """A model that a person can choose.

    Attributes:
        note: what to say beside the name: its size, mostly.
    """

    name: str
    note: str
    is_loaded: bool = False


def header(talk: Talk, listed: Sequence[Listed]) -> dict[str, Any]:
    """The widget's `header`.

    Args:
        listed: of `listed_models`, which is too slow to be asked each time.
    """
    used, length = talk.context
    name = normalized(talk.model_name)
    return {
        "conversation": normalized(talk.book.name),
        "conversations": [normalized(other) for other in talk.book.conversations()],
        "model": name,
        "models": [_entry(one) for one in _with_current(name, listed)],
        "context": {"used": used, "length": length} if length else None,
        "settings": _settings(talk),
    }


def listed_models(models: Models) -> list[Listed]:
    """Every model that has a name on this machine, and what is loaded without one.

    It reads the heads of files that it has not seen before, and waits for a model that is being loaded.
    """
    from nbllm.config import load_config
    from nbllm.session.loading import source_path
    from nbllm.store import list_models

    loaded = {_identity(model.info.model, source_path(model)): model.name for model in models.all_loaded()}
    named = {_identity(info, info.path): info for info in list_models(load_config())}
    listed = [Listed(info.name, size_text(info.size_bytes), one in loaded) for one, info in named.items()]
    return listed + [Listed(name, "", True) for one, name in loaded.items() if one not in named]


def _identity(info: ModelInfo, path: str) -> tuple[str, str]:
    """A file, and which preset of it: a file may have several names, each of its presets has one."""
    return os.path.realpath(path), info.name if info.source == "preset" else ""


def _with_current(name: str, listed: Sequence[Listed]) -> list[Listed]:
    """One entry a name, and the one that answers here in any case: a person may have named it by its path."""
    by_name = {normalized(one.name): one for one in listed}
    return list({**by_name, name: by_name.get(name, Listed(name, ""))}.values())


def _entry(one: Listed) -> dict[str, Any]:
    return {
        "name": normalized(one.name),
        "note": "loaded" if one.is_loaded else one.note,
        "loaded": one.is_loaded,
    }


def _settings(talk: Talk) -> list[dict[str, Any]]:
    preset, sampling = talk.preset, STATED
    if talk.model is not None:
        sampling = talk.model.info.defaults.or_else(STATED)
    elif preset is not None:
        sampling = preset.sampling.or_else(STATED)
    system = talk.system if "system" not in talk.options else None
    if not system and preset is not None:
        system = preset.system
    defaults = {**asdict(sampling), "system": system, "stop": sampling.stop or None}
    return [_field(setting, talk.options.get(setting.name), defaults[setting.name]) for setting in _SETTINGS]


def _field(setting: _Setting, value: Any, default: Any) -> dict[str, Any]:
    allowed = RANGES.get(setting.name)
    is_whole = allowed is not None and allowed.kind is int
    return {
        "name": setting.name,
        "label": setting.label,
        "kind": setting.kind or ("integer" if is_whole else "number"),
        "value": _shown(value),
        "default": _shown(default),
        "min": allowed.low if allowed is not None else None,
        "max": allowed.high if allowed is not None and allowed.high <= _LARGE else None,
        "step": setting.step if setting.step is not None else 1 if is_whole else None,
        "help": setting.help or (allowed.doc if allowed is not None else ""),
    }


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return normalized(value)
    return [normalized(text) for text in value] if isinstance(value, tuple | list) else value
