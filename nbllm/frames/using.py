"""The model that a table is asked of."""

from __future__ import annotations

import os
from pathlib import Path

from nbllm.config import load_config
from nbllm.errors import ParameterError
from nbllm.session.loading import load, loaded_models
from nbllm.session.model import Model
from nbllm.store import resolve


def model_of(model: Model | str | Path | None = None) -> Model:
    """The model that was meant, loaded if it is not.

    Args:
        model: None is the one that was loaded last, else the configured default. One that is loaded already, with
            options of its own, is used as it is.

    Raises:
        ModelNotFoundError: no such model; the message says how to get one.
        ParameterError: it is no model, or a URL.
    """
    if isinstance(model, Model):
        return model
    if model is None:
        loaded = loaded_models()
        return loaded[-1] if loaded else load()
    path = _file_meant(model)
    return (held(path) if path is not None else None) or load(model)


def check_model(model: object) -> None:
    """Refuse what `model_of` would, and load nothing: a job would tell it only where its result is wanted.

    Raises:
        ModelNotFoundError: no such model; the message says how to get one.
        ParameterError: it is no model, or a URL.
    """
    if model is not None and not isinstance(model, Model):
        _file_meant(model)


def _file_meant(model: object) -> Path | None:
    """`file_of`, for whatever was typed."""
    if not isinstance(model, str | Path):
        raise ParameterError("model", f"must be a name, a path or a Model, not {model!r:.100}")
    if isinstance(model, str) and model.lower().startswith(("http://", "https://")):
        raise ParameterError("model", f"for another server's give model=nbllm.connect({model!r:.200})")
    return file_of(model)


def file_of(model: str | Path) -> Path | None:
    """The file that a name or a path means, None for a model on another server that the settings name.

    Raises:
        ModelNotFoundError: no such model; the message says how to get one.
    """
    config = load_config()
    name = config.unaliased(model) if isinstance(model, str) else model
    return None if name in config.endpoints else resolve(name, config)


def held(path: Path) -> Model | None:
    """The model of this file that the user has loaded, with whatever options; the last of them."""
    real = os.path.realpath(path)
    for model in reversed(loaded_models()):
        if model.info.model.path and os.path.realpath(model.info.model.path) == real:
            return model
    return None
