"""A LoRA adapter in llama.cpp's memory."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from nbllm.errors import ModelLoadError
from nbllm.llama import log
from nbllm.llama.library import Library
from nbllm.llama.model import LlamaModel
from nbllm.llama.owned import owned

listing = threading.RLock()
"""Held while llama.cpp's list of a model's adapters changes, and while a context is made, which reads it."""


class LlamaAdapter:
    """Owns llama.cpp's adapter pointer. A context that computes with it has to be closed before.

    llama.cpp keeps a list of a model's adapters, which it reads while it evaluates: only the engine's thread may make
    or close one. A context has room for the operations of those adapters that were there when it was made.

    Args:
        path: a GGUF that was checked: many a wrong one ends the process.

    Raises:
        ModelLoadError: llama.cpp refused the file; its own words are quoted.
    """

    def __init__(self, model: LlamaModel, path: str) -> None:
        api = model.api
        encoded = path.encode("utf-8", errors="surrogateescape")
        with listing, log.captured() as errors:
            pointer = owned(api.llama_adapter_lora_init, api.llama_adapter_lora_free, model.pointer, encoded)
        if not pointer:
            reason = errors[-1].rsplit("failed to apply lora adapter: ", 1)[-1].strip() if errors else "no reason given"
            raise ModelLoadError(f"{path}: llama.cpp cannot use this adapter: {reason}")
        self.pointer: Any = pointer
        self._finalizer = weakref.finalize(self, _free, model.library, pointer)
        model.dependents.append(self._finalizer)

    def close(self) -> None:
        """Free the adapter; twice is harmless."""
        self._finalizer()


def _free(bound: Library, pointer: Any) -> None:
    if os.getpid() == bound.pid:
        with listing:
            bound.api.llama_adapter_lora_free(pointer)
