"""What a model can do, as far as its file tells, and the metadata that `/api/show` gives."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from nbllm.chat.reasoning import THINK_TAGS
from nbllm.errors import UnsupportedError
from nbllm.store.gguf import read_metadata

if TYPE_CHECKING:
    from nbllm.server.naming import Target

_TEMPLATE = "tokenizer.chat_template"
_FAMILY = "general.architecture"
_INFILL = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_THINKING = ("enable_thinking", "reasoning_effort", *(tags.close for tags in THINK_TAGS))


async def metadata(target: Target, *, wanted: Collection[str] | None = None) -> Mapping[str, Any]:
    """Of the file; a preset's template is in the place of the file's own."""
    assert target.path is not None, "another server's model has no file here"
    values = (await asyncio.to_thread(read_metadata, target.path, wanted=wanted)).values
    own = None if target.preset is None else target.preset.template
    return values if own is None else {**values, _TEMPLATE: own}


async def require_thinking(target: Target, name: str) -> None:
    """Raises UnsupportedError when nothing in the model's template is about thinking."""
    if not _thinks(await metadata(target, wanted=(_TEMPLATE,))):
        raise UnsupportedError(f'"{name[:200]}" does not support thinking: leave think out')


def capabilities(values: Mapping[str, Any]) -> list[str]:
    """In Ollama's words. Without a template of its own a model is not taught to call tools, though it may be asked."""
    family = values.get(_FAMILY)
    if f"{family}.pooling_type" in values:  # llama.cpp's mark of models that make vectors and no text
        return ["embedding"]
    found = ["completion", "embedding"]
    if values.get(_TEMPLATE):
        found.append("tools")
    if any(key in values for key in _INFILL):
        found.append("insert")
    if _thinks(values):
        found.append("thinking")
    return found


def _thinks(values: Mapping[str, Any]) -> bool:
    template = values.get(_TEMPLATE)
    return isinstance(template, str) and any(word in template for word in _THINKING)
