"""Models for Dask's workers: what is sent of one, and the one that a worker makes of it and keeps."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nbllm.config import load_config
from nbllm.errors import ParameterError
from nbllm.frames.using import model_of
from nbllm.runner.endpoint import EndpointEngine, Origin
from nbllm.session.loading import load, loaded_models
from nbllm.session.model import Model

Sent = str | Origin
"""A name or a path, which means what it means on the worker's machine; or a model on another server."""

_lock = threading.Lock()
_connected: dict[Origin, Model] = {}


def sent(model: Any) -> Sent:
    """What a worker is told of the model.

    Args:
        model: as the verbs take it; None is the one that was loaded last here, else the default, both by name.

    Raises:
        ParameterError: it is no model, or one that is in this process's memory.
        EngineError, ModelError: a server that was not asked for its model's name yet cannot be asked.
    """
    if model is None:
        loaded = loaded_models()
        model = loaded[-1].name if loaded else load_config().default_model
    if isinstance(model, Model):
        if isinstance(model.engine, EndpointEngine):
            return model.engine.origin
        problem = "a Model is in this process, and Dask's workers load their own"
        raise ParameterError("model", f"{problem}: give its name or path, model={model.name!r:.200}")
    if not isinstance(model, str | Path):
        raise ParameterError("model", f"must be a name, a path or what nbllm.connect gave, not {model!r:.100}")
    return _found_from_anywhere(model)


def received(model: Sent) -> Model:
    """The worker's own model: loaded, or connected to, with the first partition, and kept for the others.

    All threads of a worker process share it. Processes of one machine divide its cores while they decode (`cores`).

    Raises:
        NbllmError: as `nbllm.load`.
    """
    if isinstance(model, str):
        # Where nothing is loaded, `load` would tell each worker that its neighbour has the model too.
        return model_of(model) if loaded_models() else load(model, engine="kernel")
    with _lock:
        if model not in _connected:
            _connected[model] = Model(EndpointEngine(**asdict(model)))
        return _connected[model]


def _found_from_anywhere(model: str | Path) -> str:
    """A worker's folder is not this one's. What is no file here may be one there, or it is a name."""
    path = Path(model).expanduser()
    is_path = isinstance(model, Path) or path.suffix.lower() == ".gguf"
    return str(path.absolute()) if is_path and path.is_file() else os.fspath(model)


def _forget_all() -> None:
    """A forked child has none of its parent's threads, which the connections need."""
    global _lock
    _lock = threading.Lock()
    _connected.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
