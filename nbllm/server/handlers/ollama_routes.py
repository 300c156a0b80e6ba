"""Where Ollama's routes are: below `nbllm/ollama` on every server, and at the root of one that is run alone."""

from __future__ import annotations

from typing import Any

from nbllm.server.handlers.ollama import (
    OllamaChatHandler,
    OllamaEmbeddingsHandler,
    OllamaEmbedHandler,
    OllamaGenerateHandler,
)
from nbllm.server.handlers.ollama_blobs import OllamaBlobHandler
from nbllm.server.handlers.ollama_manage import (
    OllamaCopyHandler,
    OllamaCreateHandler,
    OllamaDeleteHandler,
    OllamaPullHandler,
)
from nbllm.server.handlers.ollama_models import (
    OllamaPsHandler,
    OllamaRootHandler,
    OllamaShowHandler,
    OllamaTagsHandler,
    OllamaUnknownPathHandler,
    OllamaVersionHandler,
)

PREFIX = "/nbllm/ollama"
HANDLERS: dict[str, type[Any]] = {
    "version": OllamaVersionHandler,
    "tags": OllamaTagsHandler,
    "show": OllamaShowHandler,
    "ps": OllamaPsHandler,
    "generate": OllamaGenerateHandler,
    "chat": OllamaChatHandler,
    "embed": OllamaEmbedHandler,
    "embeddings": OllamaEmbeddingsHandler,
    "pull": OllamaPullHandler,
    "create": OllamaCreateHandler,
    "copy": OllamaCopyHandler,
    "delete": OllamaDeleteHandler,
}


def ollama_routes(*, is_alone: bool) -> list[tuple[str, type[Any]]]:
    """Patterns, the first that matches wins. Below a notebook server's `/api` nothing is taken: that is Jupyter's."""
    routes: list[tuple[str, type[Any]]] = []
    for prefix in (PREFIX, "") if is_alone else (PREFIX,):
        routes += [(f"{prefix}/api/{name}/?", handler) for name, handler in HANDLERS.items()]
        routes.append((f"{prefix}/api/blobs/([^/]+)/?", OllamaBlobHandler))
        routes.append((f"{prefix}/api(?:/.*)?", OllamaUnknownPathHandler))
    routes += [(f"{PREFIX}/?", OllamaRootHandler), (f"{PREFIX}/.*", OllamaUnknownPathHandler)]
    return routes
