"""`lora`: which of a model's adapters a request is computed with, in llama.cpp's words.

"lora": [{"id": 0, "scale": 0.5}]      the first adapter at half its weight, and no other
"lora": []                             none
"""

from __future__ import annotations

from dataclasses import dataclass

from nbllm.core.adapters import SCALE
from nbllm.core.numbers import Range
from nbllm.errors import ParameterError
from nbllm.wire.openai.shapes import LoraEntry

_MOST = 16
_ID = Range(int, 0, 2**31 - 1, "the adapter's number, from 0")


@dataclass(frozen=True, slots=True)
class Switch:
    """An adapter of the model's; `scale` None is the model's own."""

    id: int
    scale: float | None


def switches(given: list[LoraEntry] | None) -> tuple[Switch, ...] | None:
    """None where nothing is said. Raises ParameterError for what is no list of different adapters."""
    if given is None:
        return None
    if len(given) > _MOST:
        raise ParameterError("lora", f"has {len(given):,} entries; at most {_MOST} are taken")
    found = tuple(_switch(entry, f"lora[{index}]") for index, entry in enumerate(given))
    ids = [switch.id for switch in found]
    for index, number in enumerate(ids):
        if number in ids[:index]:
            raise ParameterError(f"lora[{index}].id", f"{number} is there twice")
    return found


def _switch(entry: LoraEntry, at: str) -> Switch:
    if entry.path is not None:
        raise ParameterError(f"{at}.path", "files of this machine are not opened for clients: give the adapter's id")
    if entry.id is None:
        raise ParameterError(f"{at}.id", "is required: the number of one of the model's adapters, from 0")
    scale = None if entry.scale is None else float(SCALE.checked(f"{at}.scale", entry.scale))
    return Switch(int(_ID.checked(f"{at}.id", entry.id)), scale)
