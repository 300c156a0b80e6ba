"""The presets of this machine: listed, found, kept, removed."""

from __future__ import annotations

from pathlib import Path

from nbllm.config import Config
from nbllm.core.presets import Preset
from nbllm.errors import InvalidRequestError, ModelError, ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.store.blobs import is_digest
from nbllm.store.bundled import BUNDLED
from nbllm.store.files import replace_file
from nbllm.store.foreign import prefixed
from nbllm.store.header import shown
from nbllm.store.names import resolve_listed
from nbllm.store.presets import naming, tomlfile
from nbllm.store.presets.files import Entry, Shelf, entries, folder_of
from nbllm.store.presets.flattening import Resolved, flattened

__all__ = [
    "Entry",
    "Resolved",
    "Shelf",
    "check_is_free",
    "damaged",
    "entries",
    "file_of",
    "find",
    "flattened",
    "presets",
    "remove",
    "save",
]


def presets(config: Config) -> dict[str, Preset]:
    """Those that can be read, by name."""
    return {name: entry.preset for name, entry in entries(config).items() if entry.preset is not None}


def damaged(config: Config) -> dict[str, Entry]:
    """Those that cannot be read, by name."""
    return {name: entry for name, entry in entries(config).items() if entry.problem}


def find(name: str, config: Config) -> Preset | None:
    """The preset of that name, with or without ":latest", in any case; None if there is none.

    Raises:
        ModelLoadError: there is one, and its file is damaged.
    """
    entry = _entry(name, config)
    if entry is not None and entry.preset is None:
        raise ModelLoadError(f"the preset {shown(name)!r} cannot be loaded: {entry.problem}")
    return None if entry is None else entry.preset


def file_of(name: str, config: Config) -> Path | None:
    """Where the preset of that name is kept, damaged or not; None if there is none."""
    entry = _entry(name, config)
    return None if entry is None else entry.path


def save(preset: Preset, config: Config) -> None:
    """Keep a preset, in place of the one that had its name.

    Raises:
        ParameterError: the name is none, or a model's that is no preset.
        InvalidRequestError: it does not fit into a file, or that cannot be written.
    """
    name = naming.preset_name(preset.name)
    check_is_free(name, config)
    _check_places(preset)
    folder = folder_of(config)
    text = tomlfile.written(preset)
    tomlfile.parse(text, name=name, folder=folder)  # what could not be read again is refused now
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(
            file_of(name, config) or folder / naming.file_name(name), text.encode(), prefix=".", suffix=".part"
        )
    except OSError as exc:
        raise InvalidRequestError(
            f"the preset {name} cannot be written to {shown(folder)}: {exc.strerror or exc}"
        ) from exc


def remove(name: str, config: Config) -> None:
    """Remove a preset, damaged or not; what it is made of stays.

    Raises:
        ModelNotFoundError: there is none of that name.
        InvalidRequestError: its file cannot be removed.
    """
    entry = _entry(name, config)
    if entry is None:
        raise ModelNotFoundError(f"no preset {shown(name)!r}{_others(config)}")
    try:
        entry.path.unlink(missing_ok=True)
    except OSError as exc:
        raise InvalidRequestError(f"the preset {shown(name)} cannot be removed: {exc.strerror or exc}") from exc


def _entry(name: str, config: Config) -> Entry | None:
    return entries(config).meant(name)


def _others(config: Config) -> str:
    names = list(entries(config))
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return f"; there is {', '.join(names[:5])}{more}" if names else ", nor any other"


def check_is_free(name: str, config: Config) -> None:
    """Raises ParameterError for a name that means something else."""
    lower = name.casefold()
    if name in config.aliases or name in config.endpoints or lower == "default":
        raise ParameterError("name", f"{name!r} has a meaning in the settings; choose another")
    if prefixed(name) is not None:
        raise ParameterError("name", f"{name!r} begins as the name of another program's model; choose another")
    try:
        is_model = lower in BUNDLED or resolve_listed(name, config) is not None
    except ModelNotFoundError:
        return
    except ModelError:  # it is there and cannot be loaded
        is_model = True
    if is_model:
        raise ParameterError("name", f"{name!r} is the name of a model that is no preset; choose another")


def _check_places(preset: Preset) -> None:
    """A relative path would mean something else when it is read from the folder."""
    if preset.base.startswith((".", "~")):
        raise ParameterError("from", f"{shown(preset.base)} is no model's name; write the whole path")
    for adapter in preset.adapters:
        if not is_digest(adapter.path) and not Path(adapter.path).is_absolute():
            raise ParameterError("adapters", f"{shown(adapter.path)} is a relative path; write the whole one")
