"""Loading models, each at most once: the same model with the same options in the same place is the same engine."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from nbllm.config import Config, load_config
from nbllm.core import unknown_option
from nbllm.core.presets import Preset
from nbllm.engine.interface import Engine
from nbllm.engine.load import load_engine
from nbllm.errors import ParameterError
from nbllm.session import loras, sharing
from nbllm.session.attaching import TOLD, AttachedEngine, attach, live_twin
from nbllm.session.model import Model
from nbllm.session.named import Named, meant, named
from nbllm.store import model_info

if TYPE_CHECKING:
    from nbllm.engine.local import LocalEngine

Place = Literal["auto", "kernel", "server"]
_Key = tuple[str, bool, tuple[tuple[str, Any], ...]]
"""The file, whether it lives in another process, the options."""


class _Entry(NamedTuple):
    """What a model was loaded as.

    Attributes:
        key: models with the same one share an engine: those of the presets of one base, and of the base itself.
    """

    key: _Key
    named: Named


_logger = logging.getLogger("nbllm")
_lock = threading.RLock()
_loaded: dict[Model, _Entry] = {}
_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(load_engine).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}


def load(
    model: str | os.PathLike[str] | None = None, *, engine: Place = "auto", lora: Any = None, **options: Any
) -> Model:
    """Load a model, or return it if it is loaded with the same options.

    Args:
        model: a name ("smollm2"), a path to a GGUF, a name from the models folder, a preset, or an alias or endpoint
            of the settings; None is the configured default. Presets of one base that are loaded with the same options,
            and the base itself, share one engine, which is freed when the last of them is closed.
        engine: "kernel" loads it into this process; "auto" (default) too, and says so when another process of yours
            holds the same file already. "server" uses that other process's engine if it has what the options ask for,
            and else starts a process for the model, which ends with this one: what aborts there harms nothing here.
        lora: LoRA adapters for every request of this model, as `Model.chat` takes them, in place of a preset's own; the
            weights are shared with models that have others. [] is none.
        context_length: tokens that one conversation may have; chosen to fit the free memory if not given or set.
        max_sequences: requests that run side by side (default 8, or as set).
        kv_tokens: size of the pool that they share, in tokens; chosen if not given.
        kv_type: "f16" or "q8_0" (half the memory); chosen if not given.
        gpu_layers: layers to put on a GPU when llama.cpp was built for one, -1 for all (default).
        threads: most decode threads; all cores that this process may use if not given.
        use_mmap: share the weights with other processes that hold the file (default True).
        flash_attention: None (default) uses it where it helps: on a GPU, and with a quantized KV, which needs it.
        swa_full: keep all of a sliding-window model's cache, so that any prefix can be reused (default True).
        max_batch: tokens that one step evaluates at most (default 256); each costs memory.

    Where `%llm tune` has chosen something for this machine, that is the default, and the file is the one it has made.

    Raises:
        ModelNotFoundError: no such model; the message says how to get one.
        ModelLoadError: the file is damaged.
        InsufficientMemoryError: what was asked for does not fit; the message has the numbers.
        ParameterError: an option is unknown or out of range.
        EngineError: the process for it could not be started.
    """
    _check(engine, options)
    config = load_config()
    wanted = meant(model, config)
    if wanted in config.endpoints:
        return _on_endpoint(str(wanted), config, options if lora is None else {"lora": lora, **options})
    found = named(wanted, config)
    return opened(found if lora is None else _adapted(found, lora), engine, options, config)


def _adapted(model: Named, lora: Any) -> Named:
    """With these adapters in place of the preset's; a model that is none becomes a preset of no other name."""
    preset = loras.adapted(model.preset or Preset(name=model.name, base=model.base), model.path, lora)
    return model if model.preset is None and not preset.adapters else replace(model, preset=preset)


def opened(model: Named, place: Place, options: Mapping[str, Any], config: Config) -> Model:
    """`load` of a model that was found: all that differ in the preset alone share one engine.

    A preset that was loaded before and has been changed since is closed, and its settings of now hold.

    Args:
        options: those that were given; they win over the preset's.
    """
    options = {"context_length": config.context_length, **model.load_options, **options}
    given = {name: value for name, value in options.items() if name in TOLD or repr(value) != repr(_OPTIONS[name])}
    usual = {} if model.tuned is None else model.tuned.options_beside(options)
    options = {"max_sequences": config.max_sequences, **usual, **options}  # no reason to refuse a twin that has others
    key = (model.real_path, place == "server", _normal(options))
    with _lock:
        outdated = [one for one, entry in _loaded.items() if entry.named.is_outdated_by(model)]
        _close([one for one in outdated if _loaded[one].key != key])  # before the new one needs the memory
        known = _known(key, model.preset)
        if known is None:
            known = _registered(key, model, _engine(key, model, place, given, options, config))
            if place != "server":
                sharing.offer(known, config)
        elif place == "server":
            _loaded[known] = _loaded.pop(known)  # the last one is what cells use
        _close([one for one in outdated if one in _loaded])
        return known


def loaded_models() -> list[Model]:
    """The models that this process holds or is attached to, in the order they were loaded."""
    with _lock:
        return [model for model in _loaded if not getattr(model.base_engine, "is_lost", False)]


def source_path(model: Model) -> str:
    """The model's own file, of one that was loaded as it is tuned; by it the lists of models know it."""
    entry = _loaded.get(model)
    if entry is None or entry.named.tuned is None:
        return model.info.model.path
    return os.fspath(entry.named.tuned.source)


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
            raise ParameterError(name, unknown_option(name, [*_OPTIONS, "engine", "lora"]))


def _tell_of_twin(model: Named, given: Mapping[str, Any], config: Config) -> None:
    twin = live_twin(model.path, given, config)
    if twin is not None:
        _logger.warning(
            "%s is loaded in %s process %d already: nbllm.load(%r, engine='server') uses that one copy",
            twin.name, twin.kind, twin.pid, model.name,
        )  # fmt: skip


def _engine(
    key: _Key, model: Named, place: Place, given: Mapping[str, Any], options: Mapping[str, Any], config: Config
) -> Engine:
    """The engine that another model with this key has, or a new one."""
    for known, entry in _loaded.items():
        if entry.key == key:
            return known.base_engine
    if place == "server":
        tuned = () if model.tuned is None else model.tuned.options
        usual = {name: options[name] for name in tuned if name in options}
        return _noted(attach(model.path, model.base, given, config, usual=usual), model)
    if place == "auto":
        _tell_of_twin(model, given, config)
    return _noted(load_engine(model_info(model.path, model.base), config, **options), model)


def _noted(engine: LocalEngine | AttachedEngine, model: Named) -> Engine:
    if model.tuned is not None:
        engine.info = replace(engine.info, summary=f"{engine.info.summary}; {model.tuned.note}")
    return engine


def _known(key: _Key, preset: Preset | None) -> Model | None:
    """The model that was loaded so; those whose process has ended are closed."""
    alike = [model for model, entry in _loaded.items() if entry.key == key]
    _close([model for model in alike if not _is_usable(model)])
    return next((model for model in alike if model in _loaded and model.preset == preset), None)


def _registered(key: _Key, named: Named, engine: Engine) -> Model:
    model = Model(engine, lambda: _forget(model), named.preset)
    _loaded[model] = _Entry(key, named)
    return model


def _close(models: list[Model]) -> None:
    for model in models:
        model.close()


def _is_usable(model: Model) -> bool:
    return not isinstance(model.base_engine, AttachedEngine) or model.base_engine.is_alive


def _forget(model: Model) -> bool:
    """Whether nobody uses the engine any more."""
    with _lock:
        _loaded.pop(model, None)
        if any(other.base_engine is model.base_engine for other in _loaded):
            return False
    sharing.unshare(model)
    return True


def _normal(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options that say the same are the same, defaults spelled out or not."""
    return tuple(sorted((name, repr(options.get(name, default))) for name, default in _OPTIONS.items()))


def _forget_all() -> None:
    """A forked child owns none of its parent's engines."""
    _loaded.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
