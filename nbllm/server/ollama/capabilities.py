"""What a model can do, as far as its file tells, and the metadata that `/api/show` gives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbllm.chat.reasoning import THINK_TAGS
from nbllm.errors import UnsupportedError
from nbllm.store.gguf import read_metadata

_TEMPLATE = "tokenizer.chat_template"
_FAMILY = "general.architecture"
_INFILL = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_THINKING = ("enable_thinking", "reasoning_effort", *(tags.close for tags in THINK_TAGS))


async def metadata(path: Path) -> Mapping[str, Any]:
    return (await asyncio.to_thread(read_metadata, path)).values


async def require_thinking(path: Path, name: str) -> None:
    """Raises UnsupportedError when nothing in the model's template is about thinking."""
    header = await asyncio.to_thread(read_metadata, path, wanted=(_TEMPLATE,))
    if not _thinks(header.values):
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
