"""The models of a comparison, loaded one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nbllm.config import load_config
from nbllm.errors import NbllmError, ParameterError
from nbllm.frames.compare.late import LateEngine
from nbllm.frames.using import model_of, named_here
from nbllm.session.loading import load, loaded_models
from nbllm.session.model import Model
from nbllm.store import model_hash, model_info

Spec = str | Path | Model


class Contender:
    """A model that takes part.

    Args:
        spec: a Model, or what `nbllm.load` takes.

    Attributes:
        name: what it is called in the results.
    """

    def __init__(self, name: str, spec: Spec) -> None:
        self.name, self.spec = name, spec
        self._model: Model | None = None
        self._late: LateEngine | None = None
        self._is_own = False

    @property
    def load_s(self) -> float | None:
        """Seconds that this comparison spent on loading it, None if it had not to."""
        return None if self._late is None else self._late.load_s

    def check(self) -> None:
        """Raises ModelNotFoundError when its name means nothing: a slip should be told before the others run."""
        if isinstance(self.spec, str | Path):
            named_here(self.spec)

    def open(self) -> Model:
        """The model, to be loaded with its first request. One that was loaded before is used as it is.

        Raises:
            ModelError: there is no such model.
        """
        if self._model is None:
            self._model = self.spec if isinstance(self.spec, Model) else self._opened(self.spec)
        return self._model

    def close(self) -> None:
        """Free it, if this comparison loaded it. Twice is harmless."""
        model, self._model = self._model, None
        is_own, self._is_own = self._is_own, False
        if model is not None and is_own:
            model.close()

    def _opened(self, spec: str | Path) -> Model:
        found = named_here(spec)
        if found is None:
            self._is_own = True
            return load(spec)
        known = found.among(loaded_models())
        if known is not None:
            return known
        self._late = LateEngine(model_info(found.path, os.fspath(spec)), lambda: load(spec))
        self._is_own = True
        return Model(self._late, preset=found.preset)


def contenders_of(models: Any) -> list[Contender]:
    """The models of a comparison: one, a list, or a dict of names for them. None is the last loaded or the default.

    Raises:
        ParameterError: one is no model, or two have the same name.
        ModelNotFoundError: there is no model of a name.
    """
    if models is None:
        models = [model_of(None)] if loaded_models() else [str(load_config().default_model)]
    if isinstance(models, Mapping):
        pairs = [(name, _checked(model)) for name, model in models.items()]
    else:
        one = isinstance(models, str | Path | Model) or not isinstance(models, Iterable)
        listed = [_checked(model) for model in ([models] if one else models)]
        short = [_name(model) for model in listed]
        pairs = [(_name(model) if short.count(_name(model)) == 1 else _given(model), model) for model in listed]
    if not pairs:
        raise ParameterError("models", "is empty: give at least one name, path or Model")
    for name, _ in pairs:
        _check_name(name, [other for other, _ in pairs])
    contenders = [Contender(name, model) for name, model in pairs]
    for contender in contenders:
        contender.check()
    return contenders


def hash_of(model: Model) -> str:
    """Of the model's file, "" where there is none to be read."""
    path = model.info.model.path
    try:
        return model_hash(path) if path else ""
    except NbllmError:
        return ""


def _checked(model: Any) -> Spec:
    if isinstance(model, str) and model.lower().startswith(("http://", "https://")):
        raise ParameterError("models", f"for another server's give nbllm.connect({model!r:.200})")
    if isinstance(model, str | Path | Model) and model != "":
        return model
    raise ParameterError("models", f"must be names, paths or Models, not {model!r:.100}")


def _given(model: Spec) -> str:
    return model.name if isinstance(model, Model) else os.fspath(model)


def _name(model: Spec) -> str:
    """A file is called as it is in its folder."""
    given = _given(model)
    return os.path.basename(given) if given.endswith(".gguf") else given


def _check_name(name: Any, names: list[Any]) -> None:
    if not isinstance(name, str) or not name:
        raise ParameterError("models", f"a model's name must be a text, not {name!r:.100}")
    if names.count(name) > 1:
        raise ParameterError("models", f"two are called {name!r:.100}; give a dict of different names for them")
