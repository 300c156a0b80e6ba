"""The handlers under `/v1`: parse, call, answer.

Every path here is behind Jupyter's own authentication, and every answer is JSON in OpenAI's shape, errors too: a
client that speaks OpenAI's protocol can read neither a login page nor Jupyter's error pages.
"""

from __future__ import annotations

import asyncio
import os
from http.client import responses
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado import web

from nbllm.errors import NbllmError
from nbllm.server import shapes
from nbllm.store.catalog import list_models

if TYPE_CHECKING:
    from nbllm.core import ModelInfo


class ApiError(web.HTTPError):
    """A failure that a client can act on; `param` and `code` are what OpenAI's clients branch on."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(status, message.replace("%", "%%"))  # tornado formats what it logs
        self.body = shapes.error(status, message, param=param, code=code)


class OpenAIHandler(ExtensionHandlerMixin, APIHandler):
    """The base of all routes under `/v1`."""

    auth_resource = "nbllm"

    def get_login_url(self) -> str:
        """Called where Jupyter would redirect a browser to its login page; a program gets 401 instead."""
        message = "This server needs a token: send the header 'Authorization: Bearer TOKEN' with Jupyter's token"
        raise ApiError(401, message, code="invalid_api_key")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        failure = kwargs.get("exc_info", (None, None, None))[1]
        self.finish(failure.body if isinstance(failure, ApiError) else shapes.error(status_code, _reason(failure)))


class ModelsHandler(OpenAIHandler):
    """`GET /v1/models`: the models that can be loaded."""

    _track_activity = False  # clients poll this; it must not keep an idle server alive

    @web.authenticated
    @authorized("read")
    async def get(self) -> None:
        self.finish(shapes.model_list(await asyncio.to_thread(_usable_models)))


class ModelHandler(OpenAIHandler):
    """`GET /v1/models/NAME`; a name may hold a slash or a colon."""

    @web.authenticated
    @authorized("read")
    async def get(self, name: str) -> None:
        self.finish(await asyncio.to_thread(_usable_model, name))


class UnknownPathHandler(OpenAIHandler):
    """Every other path under `/v1`, for any method."""

    @web.authenticated
    @authorized("read")
    async def get(self) -> None:
        raise ApiError(404, f"Unknown path ({self.request.method} {self.request.path}); see GET /v1/models")

    head = post = put = patch = delete = get


# The next three read the headers of files: they run in a thread, so that the event loop stays free.


def _usable_models() -> list[dict[str, Any]]:
    return [_entry(info) for info in list_models() if not info.problem]


def _usable_model(name: str) -> dict[str, Any]:
    found = next((info for info in list_models() if info.name == name), None)
    if found is not None and not found.problem:
        return _entry(found)
    problem = f"cannot be loaded: {found.problem}" if found else "is not on this machine; see GET /v1/models"
    raise ApiError(404, f"The model {name!r} {problem}", param="model", code="model_not_found")


def _entry(info: ModelInfo) -> dict[str, Any]:
    try:
        modified = int(os.stat(info.path).st_mtime)
    except OSError:  # deleted since it was listed
        modified = 0
    return shapes.model(info.name, modified)


def _reason(failure: BaseException | None) -> str:
    """What may be told: our own errors and Jupyter's refusals, but nothing of an unexpected exception."""
    if isinstance(failure, NbllmError):
        return str(failure)
    if isinstance(failure, web.HTTPError):
        reason = failure.reason or responses.get(failure.status_code, "Unknown error")
        return failure.log_message % failure.args if failure.log_message else reason
    return "Internal error; the notebook server's log has the details"
