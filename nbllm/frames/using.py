"""The model that a table is asked of."""

from __future__ import annotations

from pathlib import Path

from nbllm.errors import ParameterError
from nbllm.session.loading import load, loaded_models
from nbllm.session.model import Model


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
    if not isinstance(model, str | Path):
        raise ParameterError("model", f"must be a name, a path or a Model, not {model!r:.100}")
    if isinstance(model, str) and model.lower().startswith(("http://", "https://")):
        raise ParameterError("model", f"for another server's give model=nbllm.connect({model!r:.200})")
    return _already(model) or load(model)


def _already(model: str | Path) -> Model | None:
    """The same file, loaded with whatever options; a name that means another server's model is not a file's."""
    import os

    from nbllm.config import load_config
    from nbllm.store import resolve

    config = load_config()
    name = config.unaliased(model) if isinstance(model, str) else model
    if name in config.endpoints:
        return None
    path = os.path.realpath(resolve(name, config))
    for known in reversed(loaded_models()):
        if known.info.model.path and os.path.realpath(known.info.model.path) == path:
            return known
    return None
