"""The models that cells talk to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from nbllm.core.presets import Preset
    from nbllm.session.model import Model
    from nbllm.session.named import Named


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

    def preset(self, name: str | None) -> Preset | None:
        """What the model adds to its requests, None if nothing. Raises ModelNotFoundError as `loaded` does."""

    def default(self) -> str:
        """What answers when no model is named."""


class SessionModels:
    """Those of this process. One that was loaded with `nbllm.load` and options of its own is used as it is."""

    def loaded(self, name: str | None) -> Model | None:
        return _named(name).among(self.all_loaded())

    def load(self, name: str | None, **options: Any) -> Model:
        from nbllm.session.loading import load

        return load(name, **options)

    def all_loaded(self) -> list[Model]:
        from nbllm.session.loading import loaded_models

        return loaded_models()

    def path(self, name: str | None) -> str:
        return _named(name).real_path

    def preset(self, name: str | None) -> Preset | None:
        return _named(name).preset

    def default(self) -> str:
        from nbllm.config import load_config

        return load_config().default_model


def _named(name: str | None) -> Named:
    from nbllm.config import load_config
    from nbllm.session.named import named

    return named(name, load_config())
