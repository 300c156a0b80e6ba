"""LM Studio's folder: models/PUBLISHER/REPOSITORY/FILE.gguf."""

from __future__ import annotations

from nbllm.store.folder import MAX_DEPTH
from nbllm.store.foreign.look import Entry, Look, whole_models


def lmstudio_models(look: Look) -> dict[str, Entry]:
    """By "publisher/repository/file"."""
    models = whole_models(look.gguf_files(look.folder, depth=MAX_DEPTH))
    return {name[: -len(".gguf")]: entry for name, entry in models.items()}
