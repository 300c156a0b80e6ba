"""The model that a table is asked of."""

from __future__ import annotations

from pathlib import Path

from nbllm.config import load_config
from nbllm.errors import ParameterError
from nbllm.session.loading import load, loaded_models
from nbllm.session.model import Model
from nbllm.session.named import Named, meant, named


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
    found = _meant(model)
    return (found.among(loaded_models()) if found is not None else None) or load(model)


def check_model(model: object) -> None:
    """Refuse what `model_of` would, and load nothing: a job would tell it only where its result is wanted.

    Raises:
        ModelNotFoundError: no such model; the message says how to get one.
        ParameterError: it is no model, or a URL.
    """
    if model is not None and not isinstance(model, Model):
        _meant(model)


def _meant(model: object) -> Named | None:
    """`named_here`, for whatever was typed."""
    if not isinstance(model, str | Path):
        raise ParameterError("model", f"must be a name, a path or a Model, not {model!r:.100}")
    if isinstance(model, str) and model.lower().startswith(("http://", "https://")):
        raise ParameterError("model", f"for another server's give model=nbllm.connect({model!r:.200})")
    return named_here(model)


def named_here(model: str | Path) -> Named | None:
    """What a name or a path means, None for a model on another server that the settings name.

    Raises:
        ModelNotFoundError: no such model; the message says how to get one.
    """
    config = load_config()
    return None if meant(model, config) in config.endpoints else named(model, config)
