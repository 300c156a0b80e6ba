"""The models of this machine as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nbllm.session.loading import loaded_models, source_path
from nbllm.store import list_models

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    "name",
    "size_bytes",
    "quantization",
    "parameters",
    "architecture",
    "context_length",
    "source",
    "loaded",
    "problem",
    "path",
)


def models() -> pd.DataFrame:
    """The models that `nbllm.load` takes by name: the bundled one, those in the models folder, and other programs'.

    One row a model, from a fast read of the files' metadata: name (str), size_bytes (int), quantization (str),
    parameters (int, 0 if unknown), architecture (str), context_length (int, what it was trained for), source (str:
    "bundled", "nbllm" for the models folder, "folder" for another one of the settings, "ollama", "huggingface",
    "lmstudio", "gpt4all" or "preset"), loaded (bool, in this process), problem (str, "" when it looks well), path (str,
    of a preset its base's).
    """
    import pandas as pd

    held = loaded_models()
    presets = {model.name for model in held if model.preset is not None}
    infos = [
        replace(info, loaded=info.name in presets) if info.source == "preset" else info
        for info in list_models(loaded={source_path(model) for model in held})
    ]
    rows = [[getattr(info, column) for column in _COLUMNS] for info in infos]
    return pd.DataFrame(rows, columns=list(_COLUMNS))
