"""`POST /api/pull`, `/api/create`, `/api/copy` and `DELETE /api/delete`: what changes the models of this machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated

from nbllm.errors import InvalidRequestError, ModelNotFoundError, NbllmError, ParameterError
from nbllm.server.apierror import ApiError
from nbllm.server.handlers.delivery import Delivery, Framing
from nbllm.server.handlers.ollama import OllamaHandler
from nbllm.server.making import duplicate, make
from nbllm.server.ollama.creating import Creation, parse_create
from nbllm.server.ollama.managing import CopyCall, NamedCall, parse_copy, parse_delete
from nbllm.server.ollama.pulling import PullCall, parse_pull, pull_lines
from nbllm.store.removing import Removal, removal
from nbllm.wire.ollama import answers
from nbllm.wire.ollama.manage import SUCCESS, status_body

_LINES = Framing(answers.NDJSON, ping=b"", error=lambda error: answers.error_line(error.message), has_tokens=False)


class _ManageHandler(OllamaHandler):
    scope = "manage"

    def about(self, *names: str, unknown: tuple[str, ...] = ()) -> None:
        """Raises ApiError when the key does not open a model of one of the names."""
        self.note_unknown(unknown)
        self.check_model(*names)
        self.model = names[0]

    def failure(self, error: NbllmError) -> ApiError:
        """Where models lie is for the owner."""
        told = super().failure(error)
        folders = (self.service.config().models_dir, *self.service.config().models_dirs)
        message = told.message
        for folder in folders:
            message = message.replace(os.path.join(folder, ""), "").replace(str(folder), "the models folder")
        return ApiError(told.status_code, message, retry_after_s=told.retry_after_s)


class OllamaPullHandler(_ManageHandler):
    """Gets a model. A client that goes away leaves its part to the next pull."""

    route = "api/pull"

    @allow_unauthenticated
    async def post(self) -> None:
        await self.working(self._answer, parse_pull(self.body()))

    async def _answer(self, call: PullCall) -> None:
        self.about(call.model, call.name, unknown=call.unknown)
        lines = pull_lines(self.service.pulls.follow(call.name))
        if call.stream:
            await Delivery(self, _LINES).send(_encoded(lines))
            return
        async with aclosing(lines):
            async for _ in lines:
                pass  # its end is what was asked for
        self.finish(status_body(SUCCESS))


class OllamaCreateHandler(_ManageHandler):
    """Makes a model of another: a preset."""

    route = "api/create"

    @allow_unauthenticated
    async def post(self) -> None:
        query = self.get_query_argument("model", "") or self.get_query_argument("name", "")
        await self.working(self._answer, parse_create(self.body(), query))

    async def _answer(self, call: Creation) -> None:
        self.about(call.preset.name, unknown=call.unknown)
        names, config = self.service.router.names, self.service.config()
        for note in await asyncio.to_thread(make, call, names=names, config=config):
            self.log.info("nbllm: %s: %s", call.preset.name, note)
        if call.stream:
            await Delivery(self, _LINES).send(_encoded(_made()))
        else:
            self.finish(status_body(SUCCESS))


class OllamaCopyHandler(_ManageHandler):
    """A second name for a model."""

    route = "api/copy"

    @allow_unauthenticated
    async def post(self) -> None:
        await self.working(self._answer, parse_copy(self.body()))

    async def _answer(self, call: CopyCall) -> None:
        target = await self.target_of(call.source, unknown=call.unknown)
        self.about(call.destination)
        config = self.service.config()
        await asyncio.to_thread(partial(duplicate, target, call.source, call.destination, config=config))
        self.finish()


class OllamaDeleteHandler(_ManageHandler):
    """Removes a model or a preset, after what runs it has ended."""

    route = "api/delete"

    @allow_unauthenticated
    async def delete(self) -> None:
        await self.working(self._answer, parse_delete(self.body()))

    async def _answer(self, call: NamedCall) -> None:
        found = await self._found(call)
        self.about(call.model, found.name, unknown=call.unknown)
        if found.dependents:
            raise InvalidRequestError(f"{found.warning}: delete what is made of it first")
        supervisor = self.service.router.supervisor
        for state in supervisor.loaded():
            if state.path in found.paths:
                await supervisor.unload(state.name)
            elif state.names == (found.name,):  # a preset's own copy
                await supervisor.unload(state.name, where=lambda names: list(names) == [found.name])
        await asyncio.to_thread(found.do)
        self.finish()

    async def _found(self, call: NamedCall) -> Removal:
        try:
            return await asyncio.to_thread(partial(removal, call.model, self.service.config()))
        except ParameterError:
            raise
        except ModelNotFoundError as exc:
            raise ModelNotFoundError(f"model '{call.model[:200]}' not found: {exc}") from exc
        except InvalidRequestError as exc:  # it is another program's, or the settings'
            raise ApiError(403, self.failure(exc).message) from exc


async def _made() -> AsyncGenerator[dict[str, Any]]:
    for status in ("reading model metadata", "writing manifest", SUCCESS):
        yield status_body(status)


async def _encoded(bodies: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[bytes]:
    async with aclosing(bodies):
        async for body in bodies:
            yield answers.line(body)
