"""A second name for a model: a preset. Not a byte of the weights is copied."""

from __future__ import annotations

from dataclasses import replace

from nbllm.config import Config
from nbllm.core.presets import Preset
from nbllm.errors import InvalidRequestError
from nbllm.store.header import shown
from nbllm.store.known import known_models
from nbllm.store.names import resolve, resolve_listed
from nbllm.store.presets import naming, shelf


def copy(source: str, destination: str, config: Config, *, may_replace: bool = True) -> Preset:
    """Save what `source` is as the preset `destination`.

    A preset is copied as it is; a model gets one that is made of it and changes nothing.

    Args:
        may_replace: whether another preset of that name goes.

    Raises:
        ModelNotFoundError: there is no `source`.
        ParameterError: `destination` cannot be a name.
        InvalidRequestError: both are one, `source` is on another server, or a model has the name `destination`.
    """
    copied = _copied(source, destination, config)
    there = None if may_replace else shelf.find(destination, config)
    if there is not None and replace(there, name=copied.name) != copied:
        raise InvalidRequestError(f"there is another preset {shown(there.name)}: --force puts the copy in its place")
    shelf.save(copied, config)
    return copied


def _copied(source: str, destination: str, config: Config) -> Preset:
    meant = config.unaliased(source)
    if meant in config.endpoints:
        raise InvalidRequestError(
            f"{shown(meant)} is on another server: give it another name with [aliases] in the settings"
        )
    wanted = naming.preset_name(destination)
    preset = shelf.find(meant, config)
    name = _base_name(meant, config, is_from_settings=meant != source) if preset is None else preset.name
    if naming.folded(name) == naming.folded(wanted):
        raise InvalidRequestError(f"{wanted} is the name that it has; give another for the copy")
    copied = Preset(name=wanted, base=name) if preset is None else replace(preset, name=wanted)
    shelf.flattened(copied, config)
    return copied


def _base_name(name: str, config: Config, *, is_from_settings: bool) -> str:
    """As the list of models has it, so that the preset keeps its model whatever else is pulled.

    Args:
        is_from_settings: whoever wrote the settings may mean any file by a path; a client may not.
    """
    path = resolve(name, config) if is_from_settings else resolve_listed(name, config)
    return next((listed for listed, model in known_models(config).items() if model.path == path), str(path))
