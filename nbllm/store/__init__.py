"""Model files: what they are called, where they lie, and what they say of themselves."""

from __future__ import annotations

from nbllm.store.catalog import list_models
from nbllm.store.gguf import ArrayOf, GgufHeader, check_complete, model_info, read_metadata
from nbllm.store.hashes import file_hash, model_hash
from nbllm.store.names import resolve, resolve_listed

__all__ = [
    "ArrayOf",
    "GgufHeader",
    "check_complete",
    "file_hash",
    "list_models",
    "model_hash",
    "model_info",
    "read_metadata",
    "resolve",
    "resolve_listed",
]
