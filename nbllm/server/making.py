"""Makes the presets that clients ask for. Reads headers and writes files: to be used from threads.

A client names models and blobs, never paths: what it says is looked up among the names that it could ask for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.chat.trial import check_template
from nbllm.config import Config
from nbllm.core import ModelInfo
from nbllm.errors import InvalidRequestError, ModelError, ParameterError
from nbllm.server.naming import without_folder
from nbllm.store.blobs import find_blob, is_digest
from nbllm.store.copying import copy
from nbllm.store.presets import shelf
from nbllm.store.presets.templates import GO_NOTE
from nbllm.wire.ollama.listing import tagged, untagged

if TYPE_CHECKING:
    from nbllm.server.naming import ModelNames, Target
    from nbllm.server.ollama.creating import Creation


def make(wanted: Creation, *, names: ModelNames, config: Config) -> tuple[str, ...]:
    """Save the preset over one of its name; gives what the log should say.

    Raises:
        ModelNotFoundError: there is no such base.
        InvalidRequestError: a blob is missing, damaged or does not fit, the weights would have to be quantized, the
            template cannot be used, or the name is not free; as ParameterError, it is no name.
    """
    preset = replace(wanted.preset, base=_base(wanted.preset.base, names, config))
    for index, adapter in enumerate(preset.adapters):
        if find_blob(adapter.path, config) is None:
            raise _not_sent(f"adapters[{index}]", adapter.path)
    whole = shelf.flattened(preset, config)
    _check_weights(names.info(whole.path), wanted.quantization)
    _check_adapters(whole)
    if preset.template is not None:
        check_template(preset.template)
    shelf.save(preset, config)
    return (GO_NOTE,) if preset.go_template is not None else ()


def duplicate(target: Target, source: str, destination: str, *, config: Config) -> None:
    """Give a model a second name. Raises as `make` does.

    Args:
        source: what the client called the target.
    """
    copy(_lasting(target, source, config), destination, config)


def _base(base: str, names: ModelNames, config: Config) -> str:
    if is_digest(base):
        if find_blob(base, config) is None:
            raise _not_sent("files", base)
        return base
    target = names.target(base, by_any=False, also=(untagged(base), tagged(base)))
    return _lasting(target, base, config)


def _lasting(target: Target, asked: str, config: Config) -> str:
    """The name to remember a model by: an alias that the settings have for a file is the only name of some."""
    if target.path is None:
        raise InvalidRequestError(f"{asked[:200]!r} is another server's model: make the new one there")
    plain = untagged(asked)
    return plain if config.unaliased(plain) != plain else target.name


def _check_weights(info: ModelInfo, quantization: str | None) -> None:
    if info.problem:
        raise InvalidRequestError(f"it cannot be made from this file: {info.problem}")
    if quantization is not None and quantization.casefold() != info.quantization.casefold():
        raise ParameterError(
            "quantize", f"weights are taken as they are, and these are {info.quantization}; send them quantized"
        )


def _check_adapters(whole: shelf.Resolved) -> None:
    from nbllm.engine.adapters import AdapterCheck

    fits = AdapterCheck(str(whole.path))
    for index, adapter in enumerate(whole.preset.adapters):
        try:
            fits(adapter.path)
        except ModelError as exc:
            raise ParameterError(f"adapters[{index}]", without_folder(str(exc), Path(adapter.path))) from exc


def _not_sent(param: str, digest: str) -> ParameterError:
    return ParameterError(param, f"{digest} is not here: send it to /api/blobs/{digest} first")
