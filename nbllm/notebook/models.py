"""The models that cells talk to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from nbllm.session.model import Model


class Models(Protocol):
    """Where a cell gets its model from."""

    def loaded(self, name: str | None) -> Model | None:
        """The model if this process holds it.

        Raises:
            ModelNotFoundError: there is no such model.
        """

    def load(self, name: str | None, **options: Any) -> Model: ...
    def all_loaded(self) -> list[Model]: ...
    def path(self, name: str | None) -> str:
        """The model's file. Raises ModelNotFoundError as `loaded` does."""

    def default(self) -> str:
        """What answers when no model is named."""


class SessionModels:
    """Those of this process. One that was loaded with `nbllm.load` and options of its own is used as it is."""

    def loaded(self, name: str | None) -> Model | None:
        path = self.path(name)
        for model in reversed(self.all_loaded()):
            if os.path.realpath(model.info.model.path) == path:
                return model
        return None

    def load(self, name: str | None, **options: Any) -> Model:
        from nbllm.session.loading import load

        return load(name, **options)

    def all_loaded(self) -> list[Model]:
        from nbllm.session.loading import loaded_models

        return loaded_models()

    def path(self, name: str | None) -> str:
        from nbllm.config import load_config
        from nbllm.store import resolve

        config = load_config()
        return os.path.realpath(resolve(name if name is not None else config.default_model, config))

    def default(self) -> str:
        from nbllm.config import load_config

        return load_config().default_model
