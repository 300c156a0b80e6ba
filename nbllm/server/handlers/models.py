"""`GET /v1/models`, `GET /v1/models/NAME`, `GET /v1/health`, and whatever else is asked for under `/v1`."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import allow_unauthenticated

from nbllm.server.apierror import ApiError
from nbllm.server.handlers.base import OpenAIHandler
from nbllm.store.catalog import list_models
from nbllm.wire.openai.listing import model_body, models_body

if TYPE_CHECKING:
    from nbllm.config import Config
    from nbllm.core import ModelInfo


class ModelsHandler(OpenAIHandler):
    """The models that can be asked: those on this machine, other servers', and what the settings call them."""

    route = "models"
    _track_activity = False  # clients poll this; it must not keep an idle server alive

    @allow_unauthenticated
    async def get(self) -> None:
        config = self.service.config()
        entries = await asyncio.to_thread(_entries, config)
        self.finish(models_body(entry for entry in entries if self.access.may_use(entry["id"])))


class ModelHandler(OpenAIHandler):
    """One of them; a name may hold a slash or a colon."""

    route = "models"
    _track_activity = False

    @allow_unauthenticated
    async def get(self, name: str) -> None:
        self.check_model(name)
        self.finish(await asyncio.to_thread(_entry_of, name, self.service.config()))


class HealthHandler(OpenAIHandler):
    """Whether the server is there; needs no key, and says nothing else."""

    scope = None
    route = "health"
    _track_activity = False

    @allow_unauthenticated
    async def get(self) -> None:
        self.finish({"status": "ok"})


class UnknownPathHandler(OpenAIHandler):
    """Every other path under `/v1`, for any method."""

    @allow_unauthenticated
    async def get(self) -> None:
        raise ApiError(404, f"Unknown path ({self.request.method} {self.request.path[:200]}); see GET /v1/models")

    head = post = put = patch = delete = get


# The next three read the headers of files: they run in a thread, so that the event loop stays free.


def _entries(config: Config) -> list[dict[str, Any]]:
    models = [_entry(info) for info in list_models(config) if not info.problem]
    known = {entry["id"]: entry for entry in models}
    for name in config.endpoints:
        known.setdefault(name, model_body(name, 0))
    for alias in config.aliases:
        meant = known.get(config.unaliased(alias))
        if meant is not None and alias != "*":
            known.setdefault(alias, {**meant, "id": alias})
    return list(known.values())


def _entry_of(name: str, config: Config) -> dict[str, Any]:
    found = next((entry for entry in _entries(config) if entry["id"] == name), None)
    if found is not None:
        return found
    broken = next((info for info in list_models(config) if info.name == name), None)
    problem = f"cannot be loaded: {broken.problem}" if broken else "is not on this machine; see GET /v1/models"
    raise ApiError(404, f"The model {name[:200]!r} {problem}", param="model", code="model_not_found")


def _entry(info: ModelInfo) -> dict[str, Any]:
    try:
        modified = int(os.stat(info.path).st_mtime)
    except OSError:  # deleted since it was listed
        modified = 0
    return model_body(info.name, modified)
