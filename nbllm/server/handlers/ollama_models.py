"""Ollama's routes about models: `/api/tags`, `/api/ps`, `/api/show`, `/api/version`, and what else is asked for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import allow_unauthenticated

from nbllm._version import __version__
from nbllm.server.apierror import ApiError
from nbllm.server.handlers.ollama import OllamaHandler
from nbllm.server.ollama.capabilities import capabilities, metadata
from nbllm.server.ollama.showing import file_digest, preset_digest, told_of
from nbllm.server.wording import for_clients
from nbllm.wire.decoding import unknown_keys
from nbllm.wire.ollama.listing import Listed, ps_entry, show_body, tags_entry
from nbllm.wire.ollama.shapes import ShowBody, model_of, parsed

if TYPE_CHECKING:
    from nbllm.runner.entry import RunnerState
    from nbllm.server.naming import Target

COMPATIBLE_VERSION = "0.12.11"
"""Of the Ollama whose API these routes have: clients leave features out, or refuse to go on, below some version."""
RUNNING = "Ollama is running"
_FOREVER_S = 100 * 365 * 86_400.0


class OllamaTagsHandler(OllamaHandler):
    """The models that can be asked, by each of their names."""

    route = "api/tags"
    _track_activity = False  # clients poll this; it must not keep an idle server alive

    @allow_unauthenticated
    async def get(self) -> None:
        opened = await self.opened()
        self.finish({"models": [tags_entry(listed(self, name, target)) for name, target in opened.items()]})


class OllamaPsHandler(OllamaHandler):
    """The models that runners of this server hold, by the names that were asked; what kernels hold is their own."""

    route = "api/ps"
    _track_activity = False

    @allow_unauthenticated
    async def get(self) -> None:
        states = [state for state in self.service.router.supervisor.loaded() if state.state == "ready"]
        known = await self.service.router.listed() if states else {}
        self.finish({"models": [entry for state in states for entry in self._entries(state, known)]})

    def _entries(self, state: RunnerState, known: Mapping[str, Target]) -> list[dict[str, Any]]:
        expires_s = time.time() + self._left_s(state)
        path = self.service.router.source_of(state.path)
        names = [name for name in state.names if name in known and known[name].path == path] or [state.name]
        return [
            ps_entry(self._model(state, name, known.get(name)), state.info, expires_s)
            for name in names
            if self.access.may_use(name)
        ]

    def _model(self, state: RunnerState, name: str, target: Target | None) -> Listed:
        """Args: target: None if the name means nothing any more."""
        if target is not None:
            return listed(self, name, target)
        path = self.service.router.source_of(state.path)
        return Listed(name=name, digest=file_digest(path), modified_s=0, info=self.service.router.names.info(path))

    def _left_s(self, state: RunnerState) -> float:
        """Until it is unloaded: the supervisor's clock is the monotonic one."""
        if state.expires_at is not None:
            return state.expires_at - monotonic()
        return self.service.config().keep_alive if state.num_active else _FOREVER_S


class OllamaShowHandler(OllamaHandler):
    """One model. `verbose` changes nothing: the lists that it would add, of the vocabulary, are not kept."""

    route = "api/show"
    _track_activity = False

    @allow_unauthenticated
    async def post(self) -> None:
        body, raw = parsed(self.body(), ShowBody)
        target = await self.target_of(model_of(body), unknown=unknown_keys(raw, ShowBody))
        model = listed(self, target.name, target)
        if target.path is None:
            self.finish(show_body(model, {}, ["completion"]))
            return
        with for_clients(target):
            values = await metadata(target)
        self.finish(show_body(model, values, capabilities(values), told_of(target)))


class OllamaVersionHandler(OllamaHandler):
    """Needs no key: clients ask it first."""

    scope = None
    route = "api/version"
    _track_activity = False

    @allow_unauthenticated
    def get(self) -> None:
        self.finish({"version": COMPATIBLE_VERSION, "nbllm": __version__})


class OllamaRootHandler(OllamaHandler):
    """Whether anybody is there."""

    scope = None
    route = "api"
    _track_activity = False

    @allow_unauthenticated
    def get(self) -> None:
        self.finish(RUNNING, set_content_type="text/plain; charset=utf-8")


class OllamaUnknownPathHandler(OllamaHandler):
    """Every other path, for any method."""

    @allow_unauthenticated
    async def get(self) -> None:
        raise ApiError(404, f"unknown path ({self.request.method} {self.request.path[:200]})")

    head = post = put = patch = delete = get


def listed(handler: OllamaHandler, name: str, target: Target) -> Listed:
    """A model as lists of Ollama's have it."""
    if target.path is None:
        digest = hashlib.sha256(target.name.encode("utf-8", "surrogatepass")).hexdigest()
        return Listed(name=name, digest=digest, modified_s=0, info=None)
    info = handler.service.router.names.info(target.path)
    digest, parent = file_digest(target.path), ""
    if target.preset is not None:
        digest, parent = preset_digest(target.preset, digest), target.base
    return Listed(name=name, digest=digest, modified_s=target.modified_s, info=info, parent=parent)
