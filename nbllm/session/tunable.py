"""What `%llm tune NAME` means."""

from __future__ import annotations

import os

from nbllm.config import Config
from nbllm.core import ModelInfo
from nbllm.errors import ModelLoadError, ParameterError
from nbllm.session.named import meant, named
from nbllm.store import model_info
from nbllm.store.gguf import check_complete


def tunable(name: str, config: Config) -> ModelInfo:
    """The model's own file, whatever was chosen for it before; of a preset, its base's.

    Raises:
        ModelNotFoundError: there is no such model.
        ModelLoadError: it is damaged.
        ParameterError: it is on another server.
    """
    wanted = meant(name, config)
    if wanted in config.endpoints:
        raise ParameterError("tune", f"{name} is a model on another server: tune it there")
    found = named(wanted, config)
    path = found.path if found.tuned is None else os.fspath(found.tuned.source)
    model = model_info(path, found.base)
    if model.problem:
        raise ModelLoadError(f"{model.path}: {model.problem}")
    check_complete(path)
    return model
