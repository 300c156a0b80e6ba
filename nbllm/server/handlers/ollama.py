"""`POST /api/generate`, `/api/chat`, `/api/embed` and `/api/embeddings`, and what all routes of Ollama's do alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import allow_unauthenticated

from nbllm.core import EmbedRequest, GenerateRequest
from nbllm.errors import ContextOverflowError, ModelNotFoundError, NbllmError, ParameterError, UnsupportedError
from nbllm.server.apierror import ApiError
from nbllm.server.handlers.base import OpenAIHandler, gathered, priority
from nbllm.server.handlers.delivery import Delivery, Framing
from nbllm.server.ollama.calls import Call, parse_chat, parse_generate
from nbllm.server.ollama.capabilities import require_thinking
from nbllm.server.ollama.fitting import Fitted, fitted, fitted_texts
from nbllm.server.ollama.thinking import filter_for
from nbllm.server.ollama.vectors import VectorCall, parse_embed, parse_embeddings
from nbllm.server.tailoring import tailored
from nbllm.wire.ollama import answers
from nbllm.wire.ollama.answers import Answer
from nbllm.wire.ollama.listing import tagged, untagged
from nbllm.wire.ollama.vectors import embed_body, embeddings_body

if TYPE_CHECKING:
    from nbllm.server.naming import Target
    from nbllm.server.ollama.options import Room
    from nbllm.server.router import Wish

_LINES = Framing(answers.NDJSON, ping=b"", error=lambda error: answers.error_line(error.message))


class OllamaHandler(OpenAIHandler):
    """The base of Ollama's routes: its shape of errors, and its names of models."""

    challenge = 'Bearer, Basic realm="nbllm", charset="UTF-8"'

    def told(self, failure: ApiError) -> dict[str, Any]:
        return answers.error_body(failure.message)

    def too_busy(self) -> ApiError:
        """What Ollama's clients wait for and ask again after, where OpenAI's do after a 429."""
        return ApiError(503, "server busy, please try again: the queue is full", retry_after_s=2)

    def failure(self, error: NbllmError) -> ApiError:
        if isinstance(error, ParameterError) and error.param.partition("[")[0] == "tokens":
            error = ParameterError("context" + error.param.removeprefix("tokens"), error.problem)
        return super().failure(error)

    async def resolved(self, name: str) -> Target:
        """With or without the tag "latest". No name means the default model unless the settings say so."""
        by_any, also = self.service.answers_any_name, (untagged(name), tagged(name))
        try:
            return await self.service.router.target(name, by_any=by_any, also=also)
        except ModelNotFoundError as exc:
            raise ModelNotFoundError(f"model '{name[:200]}' not found: {exc}") from exc

    def _wish(self, keep_alive_s: float | None, room: Room) -> Wish:
        return replace(self.wish(keep_alive_s), context_length=room.context_length)


class _AnswerHandler(OllamaHandler):
    """An answer in text, streamed unless the client says otherwise; or the loading or unloading of a model."""

    scope = "chat"
    _load_s = 0.0

    async def _answer(self, call: Call) -> None:
        target = await self.target_of(call.model, unknown=call.unknown)
        for note in call.notes:
            self.log.info("nbllm: %s: %s", target.name, note)
        if call.think and target.path is not None:
            await require_thinking(target, call.model)
        if call.request is None:
            await self._hold(call, target)
            return
        call = replace(call, request=_tailored(target, call, call.request))
        answer = Answer(call.form, call.model, shows_thinking=call.think is not False)
        with self.counting(answer.usage):
            await self._say(call, target, answer)

    async def _hold(self, call: Call, target: Target) -> None:
        """Load the model, or unload it; another server's is not ours to load."""
        if call.unloads:
            await self.service.router.supervisor.unload(
                target.base, where=lambda names: target.preset is None or target.name in names
            )
        elif target.path is not None:
            await self.service.router.ask(target, self._wish(call.keep_alive, call.room), lambda engine: engine.info)
        self.finish(answers.held_body(call.form, call.model, time.time(), "unload" if call.unloads else "load"))

    async def _say(self, call: Call, target: Target, answer: Answer) -> None:
        if call.stream:
            await Delivery(self, _LINES).send(self._lines(call, target, answer))
            return
        async with contextlib.aclosing(self._steps(call, target, answer)) as steps:
            async for _ in steps:
                pass  # all of it is in the end
        self.finish(self._end(answer))

    async def _lines(self, call: Call, target: Target, answer: Answer) -> AsyncGenerator[bytes]:
        async with contextlib.aclosing(self._steps(call, target, answer)) as steps:
            async for _ in steps:
                if line := answer.line(time.time()):
                    yield line
        yield answers.line(self._end(answer))

    async def _steps(self, call: Call, target: Target, answer: Answer) -> AsyncGenerator[None]:
        """Takes the answer in; stops wherever there may be news in it."""
        begun, wish = monotonic(), self._wish(call.keep_alive, call.room)
        made = await self._fitted(call, target, wish)
        if call.gives_context and made.tokens:
            answer.follow(made.tokens)
        filtered = filter_for(made)
        async with await self.service.router.open(target, made.request, wish) as flight:
            self._load_s = monotonic() - begun
            async for chunk in flight:
                for ready in (chunk, *flight.ready()):
                    answer.add(filtered(self.generated(ready)))
                yield

    async def _fitted(self, call: Call, target: Target, wish: Wish) -> Fitted:
        """Another server fits prompts as it likes."""
        assert call.request is not None, "what loads is not answered"
        if target.path is not None:
            return await self.service.router.ask(target, wish, partial(fitted, call=call))
        if call.context:
            raise UnsupportedError("context: goes with the models of this machine only; send the messages to /api/chat")
        return Fitted(call.request, ())

    def _end(self, answer: Answer) -> dict[str, Any]:
        return answer.last(time.time(), total_s=monotonic() - self.started, load_s=self._load_s)


def _tailored(target: Target, call: Call, request: GenerateRequest) -> GenerateRequest:
    return tailored(target, request, call.lora, assumed=call.assumed, goes_on=bool(call.context))


class OllamaGenerateHandler(_AnswerHandler):
    """One prompt, in the model's template unless it is raw."""

    route = "api/generate"

    @allow_unauthenticated
    async def post(self) -> None:
        await self.working(self._answer, parse_generate(self.body()))


class OllamaChatHandler(_AnswerHandler):
    """A chat."""

    route = "api/chat"

    @allow_unauthenticated
    async def post(self) -> None:
        await self.working(self._answer, parse_chat(self.body()))


class _VectorHandler(OllamaHandler):
    scope = "embeddings"

    async def _answer(self, call: VectorCall) -> None:
        target = await self.target_of(call.model, unknown=call.unknown)
        wish = self._wish(call.keep_alive, call.room)
        self._load_s = 0.0
        vectors, num_tokens = await self._vectors(call, target, wish) if call.texts else ([], 0)
        if not call.texts and target.path is not None:
            await self.service.router.ask(target, wish, lambda engine: engine.info)
        self.count({"prompt_tokens": num_tokens, "total_tokens": num_tokens})
        self.finish(self._body(call, vectors, num_tokens))

    def _body(self, call: VectorCall, vectors: list[Any], num_tokens: int) -> dict[str, Any]:
        raise NotImplementedError

    async def _vectors(self, call: VectorCall, target: Target, wish: Wish) -> tuple[list[Any], int]:
        asked = EmbedRequest(texts=call.texts, priority=priority(len(call.texts)), unit=call.unit)
        request = tailored(target, asked, call.lora)
        begun = monotonic()
        try:
            flight = await self.service.router.open(target, request, wish)
        except ContextOverflowError as exc:
            if not call.room.truncates or target.path is None:
                raise
            cut = partial(fitted_texts, texts=call.texts, limit=exc.context_length)
            texts = await self.service.router.ask(target, wish, cut)
            flight = await self.service.router.open(target, replace(request, texts=texts), wish)
        self._load_s = monotonic() - begun
        return await gathered(flight, len(call.texts))


class OllamaEmbedHandler(_VectorHandler):
    """Texts as unit vectors."""

    route = "api/embed"

    @allow_unauthenticated
    async def post(self) -> None:
        await self.working(self._answer, parse_embed(self.body()))

    def _body(self, call: VectorCall, vectors: list[Any], num_tokens: int) -> dict[str, Any]:
        total_s = monotonic() - self.started
        return embed_body(
            call.model, vectors, num_tokens, dimensions=call.dimensions, total_s=total_s, load_s=self._load_s
        )


class OllamaEmbeddingsHandler(_VectorHandler):
    """A text as a vector of the length that the model gives it: what clients from before `/api/embed` ask for."""

    route = "api/embeddings"

    @allow_unauthenticated
    async def post(self) -> None:
        await self.working(self._answer, parse_embeddings(self.body()))

    def _body(self, call: VectorCall, vectors: list[Any], num_tokens: int) -> dict[str, Any]:
        return embeddings_body(vectors[0] if vectors else None)
