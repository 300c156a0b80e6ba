"""What is told of a preset, and by which digest each model is known."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.core import Adapter, Preset
from nbllm.store.presets import modelfile
from nbllm.wire.ollama.listing import Told, tagged

if TYPE_CHECKING:
    from nbllm.server.naming import Target

_PARAMETER = "PARAMETER "
_WIDTH = 30


def told_of(target: Target) -> Told | None:
    """None for a model that is no preset. Where files lie is told to nobody: they are named without their folders."""
    if target.preset is None:
        return None
    adapters = tuple(Adapter(Path(one.path).name, one.scale) for one in target.preset.adapters)
    preset = replace(target.preset, base=tagged(target.base), adapters=adapters)
    return Told(
        modelfile=modelfile.written(preset),
        parameters=_parameters(preset),
        system=preset.system or "",
        messages=[(message.role, message.content) for message in preset.messages],
        licenses=preset.licenses,
    )


def file_digest(path: Path) -> str:
    """Another one for every other file, and for every change of one. To hash what is in it would take minutes."""
    stamp: tuple[int, ...] = ()
    with suppress(OSError):
        status = path.stat()
        stamp = status.st_size, status.st_mtime_ns
    return hashlib.sha256(f"{path} {stamp}".encode("utf-8", "surrogateescape")).hexdigest()


def preset_digest(preset: Preset, base: str) -> str:
    """Args: base: the digest of its file."""
    return hashlib.sha256(f"{base} {preset}".encode("utf-8", "surrogatepass")).hexdigest()


def _parameters(preset: Preset) -> str:
    """A line a parameter, in two columns."""
    bare = Preset(
        name=preset.name,
        base=preset.base,
        sampling=preset.sampling,
        context_length=preset.context_length,
        threads=preset.threads,
    )
    words = [line.removeprefix(_PARAMETER).partition(" ") for line in modelfile.written(bare).splitlines()[1:]]
    return "\n".join(f"{name.ljust(_WIDTH)} {value}" for name, _, value in words)
