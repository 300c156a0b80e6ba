"""Loading models, each at most once: the same model with the same options in the same place is the same engine."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any, Literal, get_args

from nbllm.config import Config, load_config
from nbllm.core import unknown_option
from nbllm.engine.interface import Engine
from nbllm.engine.load import load_engine
from nbllm.errors import ParameterError
from nbllm.session import sharing
from nbllm.session.attaching import TOLD, AttachedEngine, attach, live_twin
from nbllm.session.model import Model
from nbllm.store import model_info, resolve

Place = Literal["auto", "kernel", "server"]
_Key = tuple[str, bool, tuple[tuple[str, Any], ...]]
"""The file, whether it lives in another process, the options."""
_logger = logging.getLogger("nbllm")
_lock = threading.RLock()
_loaded: dict[_Key, Model] = {}
_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(load_engine).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}


def load(model: str | os.PathLike[str] | None = None, *, engine: Place = "auto", **options: Any) -> Model:
    """Load a model, or return it if it is loaded with the same options.

    Args:
        model: a name ("smollm2"), a path to a GGUF, a name from the models folder, or an alias or endpoint of the
            settings; None is the configured default.
        engine: "kernel" loads it into this process; "auto" (default) too, and says so when another process of yours
            holds the same file already. "server" uses that other process's engine if it has what the options ask for,
            and else starts a process for the model, which ends with this one: what aborts there harms nothing here.
        context_length: tokens that one conversation may have; chosen to fit the free memory if not given or set.
        max_sequences: requests that run side by side (default 8, or as set).
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
        EngineError: the process for it could not be started.
    """
    _check(engine, options)
    config = load_config()
    wanted = config.unaliased(model) if isinstance(model, str) else model if model is not None else config.default_model
    if wanted in config.endpoints:
        return _on_endpoint(str(wanted), config, options)
    options = {"context_length": config.context_length, **options}
    given = {name: value for name, value in options.items() if name in TOLD or repr(value) != repr(_OPTIONS[name])}
    options = {"max_sequences": config.max_sequences, **options}  # no reason to refuse a twin that has fewer
    path, name = str(resolve(wanted, config)), os.fspath(wanted)
    key = (os.path.realpath(path), engine == "server", _normal(options))
    with _lock:
        known = _loaded.get(key)
        if known is not None and _is_usable(known):
            if engine == "server":
                _loaded[key] = _loaded.pop(key)  # the last one is what cells use
            return known
        if known is not None:
            known.close()
        if engine == "server":
            return _registered(key, attach(path, name, given, config))
        if engine == "auto":
            _tell_of_twin(path, name, given, config)
        own = _registered(key, load_engine(model_info(path, name), config, **options))
        sharing.offer(own, config)
        return own


def loaded_models() -> list[Model]:
    """The models that this process holds or is attached to, in the order they were loaded."""
    with _lock:
        return [model for model in _loaded.values() if not getattr(model.engine, "is_lost", False)]


def _on_endpoint(name: str, config: Config, options: Mapping[str, Any]) -> Model:
    """Another server's model, as the settings name it. What it holds and how is that server's affair."""
    from nbllm.session.connecting import connect

    for option in options:
        raise ParameterError(option, f"{name} is a model on another server, which has its own; leave it out")
    endpoint = config.endpoints[name]
    return connect(endpoint.base_url, model=endpoint.model, api_key=endpoint.api_key())


def _check(engine: str, options: Mapping[str, Any]) -> None:
    if engine not in get_args(Place):
        raise ParameterError("engine", f"must be 'auto', 'kernel' or 'server', not {engine!r:.100}")
    for name in options:
        if name not in _OPTIONS:
            raise ParameterError(name, unknown_option(name, [*_OPTIONS, "engine"]))


def _tell_of_twin(path: str, name: str, given: Mapping[str, Any], config: Config) -> None:
    twin = live_twin(path, given, config)
    if twin is not None:
        _logger.warning(
            "%s is loaded in %s process %d already: nbllm.load(%r, engine='server') uses that one copy",
            twin.name, twin.kind, twin.pid, name,
        )  # fmt: skip


def _registered(key: _Key, engine: Engine) -> Model:
    model = Model(engine, on_close=lambda: _forget(key, model))
    _loaded[key] = model
    return model


def _is_usable(model: Model) -> bool:
    return not isinstance(model.engine, AttachedEngine) or model.engine.is_alive


def _forget(key: _Key, model: Model) -> None:
    """The key may mean another model by now."""
    with _lock:
        if _loaded.get(key) is model:
            del _loaded[key]
    sharing.unshare(model)


def _normal(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options that say the same are the same, defaults spelled out or not."""
    return tuple(sorted((name, repr(options.get(name, default))) for name, default in _OPTIONS.items()))


def _forget_all() -> None:
    """A forked child owns none of its parent's engines."""
    _loaded.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
