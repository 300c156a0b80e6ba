"""`GET /v1/models`, `GET /v1/models/NAME`, `GET /v1/health`, and whatever else is asked for under `/v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import allow_unauthenticated

from nbllm.errors import ParameterError
from nbllm.server.apierror import ApiError
from nbllm.server.handlers.base import OpenAIHandler
from nbllm.wire.openai.listing import model_body, models_body

if TYPE_CHECKING:
    from nbllm.server.naming import Target

ROUTES = (
    *("chat/completions", "completions", "embeddings", "models", "models/NAME"),
    *("tokenize", "detokenize", "chat/completions/input_tokens", "health"),
)


class ModelsHandler(OpenAIHandler):
    """The models that can be asked: those on this machine, other servers', and what the settings call them."""

    route = "models"
    _track_activity = False  # clients poll this; it must not keep an idle server alive

    @allow_unauthenticated
    async def get(self) -> None:
        opened = await self.opened()
        self.finish(models_body(_body(name, target) for name, target in opened.items()))


class ModelHandler(OpenAIHandler):
    """One of them; a name may hold a slash or a colon."""

    route = "models"
    _track_activity = False

    @allow_unauthenticated
    async def get(self, name: str) -> None:
        try:
            target = await self.target_of(name)
        except ParameterError as exc:  # too long, say: a path that leads nowhere, as any other
            raise ApiError(404, str(exc), param="model", code="model_not_found") from exc
        is_listed = name in await self.service.router.listed()
        self.finish(_body(name if is_listed else target.name, target))


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
        asked = f"{self.request.method} {self.request.path[:200]}"
        raise ApiError(404, f"Unknown path ({asked}); below /v1 there are {', '.join(ROUTES)}")

    head = post = put = patch = delete = get


def _body(name: str, target: Target) -> dict[str, Any]:
    return model_body(name, target.modified_s)
