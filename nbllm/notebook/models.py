"""The models that cells talk to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from nbllm.session.model import Model


class Models(Protocol):
    """Where a cell gets its model from."""

    def loaded(self, name: str | None) -> Model | None:
        """The model if this process holds it.

        Raises:
            ModelNotFoundError: there is no such model.
        """

    def load(self, name: str | None) -> Model: ...

    def default(self) -> str:
        """What answers when no model is named."""


class SessionModels:
    """Those of this process. One that was loaded with `nbllm.load` and options of its own is used as it is."""

    def loaded(self, name: str | None) -> Model | None:
        from nbllm.config import load_config
        from nbllm.session.loading import loaded_models
        from nbllm.store import resolve

        config = load_config()
        path = os.path.realpath(resolve(name if name is not None else config.default_model, config))
        for model in reversed(loaded_models()):
            if os.path.realpath(model.info.model.path) == path:
                return model
        return None

    def load(self, name: str | None) -> Model:
        from nbllm.session.loading import load

        return load(name)

    def default(self) -> str:
        from nbllm.config import load_config

        return load_config().default_model
