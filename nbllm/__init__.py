"""Language models in Jupyter, answered by llama.cpp in the kernel. Importing it loads nothing but itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbllm._version import __version__
from nbllm.frames.register import register as _register_accessors

if TYPE_CHECKING:
    from nbllm import errors as errors
    from nbllm.core import Chunk as Chunk
    from nbllm.core import Message as Message
    from nbllm.core import SamplingParams as SamplingParams
    from nbllm.frames.compare.compare import compare as compare
    from nbllm.frames.compare.replay import replay as replay
    from nbllm.frames.listing import models as models
    from nbllm.frames.plain import amap as amap
    from nbllm.frames.plain import map as map
    from nbllm.notebook.widget.chat_widget import ChatWidget as ChatWidget
    from nbllm.session.cache import cache as cache
    from nbllm.session.connecting import connect as connect
    from nbllm.session.conversation import Conversation as Conversation
    from nbllm.session.loading import load as load
    from nbllm.session.model import Model as Model
    from nbllm.session.response import Response as Response

_HOMES = {
    "ChatWidget": "nbllm.notebook.widget.chat_widget",
    "Chunk": "nbllm.core",
    "Conversation": "nbllm.session.conversation",
    "Message": "nbllm.core",
    "Model": "nbllm.session.model",
    "Response": "nbllm.session.response",
    "SamplingParams": "nbllm.core",
    "amap": "nbllm.frames.plain",
    "cache": "nbllm.session.cache",
    "compare": "nbllm.frames.compare.compare",
    "connect": "nbllm.session.connecting",
    "errors": "nbllm",
    "load": "nbllm.session.loading",
    "map": "nbllm.frames.plain",
    "models": "nbllm.frames.listing",
    "replay": "nbllm.frames.compare.replay",
}

__all__ = [
    "ChatWidget",
    "Chunk",
    "Conversation",
    "Message",
    "Model",
    "Response",
    "SamplingParams",
    "__version__",
    "amap",
    "cache",
    "compare",
    "connect",
    "errors",
    "load",
    "map",
    "models",
    "replay",
]


_register_accessors()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nbllm' has no attribute {name!r}")
    import importlib

    if name == "errors":
        return importlib.import_module("nbllm.errors")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__]


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext nbllm` calls: registers the magics. Loads no model."""
    from nbllm.notebook.extension import load_ipython_extension as register

    register(shell)


def unload_ipython_extension(shell: Any) -> None:
    """What `%unload_ext nbllm` calls."""
    from nbllm.notebook.extension import unload_ipython_extension as unregister

    unregister(shell)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """What Jupyter's server asks for: the routes on the notebook server."""
    from nbllm.server.extension import NbllmApp

    return [{"module": "nbllm.server.extension", "app": NbllmApp}]
