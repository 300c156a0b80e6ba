"""GPT4All's folder: GGUF files side by side. The name of one that is still being downloaded begins with incomplete-."""

from __future__ import annotations

from nbllm.store.foreign.look import Entry, Look, whole_models

_UNFINISHED = "incomplete-"


def gpt4all_models(look: Look) -> dict[str, Entry]:
    """By the files' names without .gguf."""
    models = whole_models(look.gguf_files(look.folder, depth=1))
    return {name[: -len(".gguf")]: entry for name, entry in models.items() if not name.startswith(_UNFINISHED)}
