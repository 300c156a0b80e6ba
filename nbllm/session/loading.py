"""Loading models, each at most once: the same model with the same options is the same engine."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Mapping
from typing import Any

from nbllm.config import load_config
from nbllm.core import unknown_option
from nbllm.engine.load import load_engine
from nbllm.errors import ParameterError
from nbllm.session.model import Model
from nbllm.store import model_info, resolve

_Key = tuple[str, tuple[tuple[str, Any], ...]]
_lock = threading.RLock()
_loaded: dict[_Key, Model] = {}
_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(load_engine).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}


def load(model: str | os.PathLike[str] | None = None, **options: Any) -> Model:
    """Load a model into this process, or return it if it is loaded with the same options.

    Args:
        model: a name ("smollm2"), a path to a GGUF, or a name from the models folder; None is the configured default.
        context_length: tokens that one conversation may have; chosen to fit the free memory if not given.
        max_sequences: requests that run side by side (default 8).
        kv_tokens: size of the pool that they share, in tokens; chosen if not given.
        kv_type: "f16" or "q8_0" (half the memory); chosen if not given.
        gpu_layers: layers to put on a GPU when llama.cpp was built for one, -1 for all (default).
        threads: most decode threads; all cores that this process may use if not given.
        use_mmap: share the weights with other processes that hold the file (default True).
        flash_attention: None (default) uses it where it helps: on a GPU, and with a quantized KV, which needs it.
        swa_full: keep all of a sliding-window model's cache, so that any prefix can be reused (default True).

    Raises:
        ModelNotFoundError: no such model; the message says how to get one.
        ModelLoadError: the file is damaged.
        InsufficientMemoryError: what was asked for does not fit; the message has the numbers.
        ParameterError: an option is unknown or out of range.
    """
    for name in options:
        if name not in _OPTIONS:
            raise ParameterError(name, unknown_option(name, list(_OPTIONS)))
    config = load_config()
    wanted = model if model is not None else config.default_model
    path = str(resolve(wanted, config))
    name = os.fspath(wanted)
    key = (os.path.realpath(path), _normal(options))
    with _lock:
        known = _loaded.get(key)
        if known is None:
            engine = load_engine(model_info(path, name), config, **options)
            known = _loaded[key] = Model(engine, on_close=lambda: _forget(key))
        return known


def loaded_models() -> list[Model]:
    """The models that this process holds, in the order they were loaded."""
    with _lock:
        return list(_loaded.values())


def _forget(key: _Key) -> None:
    with _lock:
        _loaded.pop(key, None)


def _normal(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options that say the same are the same, defaults spelled out or not."""
    return tuple(sorted((name, repr(options.get(name, default))) for name, default in _OPTIONS.items()))


def _forget_all() -> None:
    """A forked child owns none of its parent's engines."""
    _loaded.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
