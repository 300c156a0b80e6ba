"""A client's request, as the preset changes it that it asks for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from nbllm.core import Adapter, EmbedRequest, GenerateRequest, applied
from nbllm.errors import ParameterError, UnsupportedError

if TYPE_CHECKING:
    from nbllm.server.naming import Target
    from nbllm.wire.openai.lora import Switch

_R = TypeVar("_R", GenerateRequest, EmbedRequest)


def tailored(
    target: Target,
    request: _R,
    lora: Sequence[Switch] | None,
    *,
    assumed: Collection[str] = (),
    goes_on: bool = False,
) -> _R:
    """The request as the model's file has to be asked it. To be done once a request.

    Args:
        lora: which of the preset's adapters to compute with; None leaves them as the preset has them.
        assumed: sampling parameters that the client left to its protocol: what the preset says of them goes before.
        goes_on: it follows tokens that have the preset's instructions and examples among them.

    Raises:
        ParameterError: it names an adapter that the model does not have.
        UnsupportedError: it names adapters, and the model is another server's.
    """
    if lora is not None:
        request = replace(request, adapters=_adapters(target, lora))
    preset = target.preset
    if preset is None:
        return request
    if goes_on:
        preset = replace(preset, system=None, messages=())
    if not isinstance(request, GenerateRequest):
        return applied(preset, request)
    said: dict[str, None] = dict.fromkeys(assumed)
    made = applied(preset, replace(request, sampling=replace(request.sampling, **said)))  # type: ignore[arg-type]
    return replace(made, sampling=made.sampling.or_else(request.sampling))


def _adapters(target: Target, lora: Sequence[Switch]) -> tuple[Adapter, ...]:
    """Those that are named, at the scale that is asked for or else the preset's. As llama.cpp has it, no others."""
    if target.path is None:
        raise UnsupportedError("lora: goes with the models of this machine only")
    known = () if target.preset is None else target.preset.adapters
    chosen = []
    for index, switch in enumerate(lora):
        if switch.id >= len(known):
            have = f"has {len(known)}, numbered from 0" if known else "has none"
            raise ParameterError(f"lora[{index}].id", f"there is no adapter {switch.id}: {target.name} {have}")
        adapter = known[switch.id]
        chosen.append(adapter if switch.scale is None else Adapter(adapter.path, switch.scale))
    return tuple(adapter for adapter in chosen if adapter.scale)
