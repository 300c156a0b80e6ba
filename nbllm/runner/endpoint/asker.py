"""What one model of another server is asked, and how its answers become chunks. For one event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nbllm.core import Chunk, EmbedRequest, GenerateRequest, Request, Usage
from nbllm.errors import EngineError, InvalidRequestError, NbllmError, UnsupportedError
from nbllm.runner.endpoint.caller import Caller, TemporaryError
from nbllm.runner.endpoint.job import Job
from nbllm.runner.endpoint.slots import Slots
from nbllm.wire.outgoing.answers import StreamReader, vectors
from nbllm.wire.outgoing.bodies import Call, depends_on_server, embeddings_call, generate_call
from nbllm.wire.outgoing.listing import Kind, ServedModel, Server, served_models, version
from nbllm.wire.outgoing.parsing import entries, parsed, text
from nbllm.wire.sse import SseParser

if TYPE_CHECKING:
    import httpx

_TEXTS_A_CALL = 256
_LAST_WORDS_S = 1.0
"""A connection that does not close by then is left to itself."""


class Asker:
    """One model of one server.

    Attributes:
        model: None until it is known which.
        served: what the server says of it, None until it was asked.
        embedding_length: 0 until there was an embedding.
        jobs: that are not done.
    """

    def __init__(self, caller: Caller, model: str | None, max_concurrency: int) -> None:
        self._caller = caller
        self._slots = Slots(max_concurrency)
        self._server = Server("openai") if caller.is_openai else Server()
        self.model = model
        self.served: ServedModel | None = None
        self.embedding_length = 0
        self.usage = Usage()
        self.jobs: set[Job] = set()
        self._first_look = asyncio.Lock()

    @property
    def base_url(self) -> str:
        return self._caller.base_url

    def check(self, request: Request) -> None:
        """Raises InvalidRequestError for what can be seen to be wrong without asking the server."""
        if isinstance(request, EmbedRequest):
            encoded(list(request.texts))
        elif isinstance(request, GenerateRequest) and (self._is_known or not depends_on_server(request)):
            encoded(generate_call(request, self.model or "", self._server).body)

    async def serve(self, job: Job) -> None:
        """See a job to its end, whatever ends it."""
        self.jobs.add(job)
        job.task = asyncio.ensure_future(self._answer(job))
        if job.ended_by is not None:
            job.task.cancel()
        stopped = asyncio.ensure_future(job.is_stopped.wait())
        await asyncio.wait({job.task, stopped}, timeout=job.remaining_s(), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not job.task.done():
            job.stop("timeout")
            await asyncio.wait({job.task}, timeout=_LAST_WORDS_S)
        error = _error_of(job.task)
        if not job.is_done:
            self._count(job.usage)
            job.finish(job.ended_by or "error", job.error or error)
        self.jobs.discard(job)

    async def close(self, error: BaseException) -> None:
        for job in tuple(self.jobs):
            job.stop("error", error)
        while self.jobs:
            await asyncio.sleep(0.001)
        await self._caller.close()

    async def model_name(self) -> str:
        """Raises ModelNotFoundError when none was named and there is not exactly one."""
        if self.model is None:
            self.model = await self._caller.only_model()
        return self.model

    async def look_up(self) -> ServedModel | None:
        """What the server says of the model, None when it does not list it."""
        name = await self.model_name()
        status, body = await self._caller.get(f"{await self._caller.root()}/models/{quote(name, safe='')}")
        models = (served_models(parsed(body)) if status == 200 else None) or await self._caller.models(name)
        self.served = next((model for model in models if model.name == name), None)
        if self._server.kind == "unknown":
            kind: Kind = self.served.kind if self.served else next((model.kind for model in models), "other")
            self._server = Server(kind, await self._version() if kind == "vllm" else ())
        return self.served

    async def tokenize(self, content: str, parse_special: bool) -> list[int]:
        await self._require_nbllm("tokenize")
        body = {"model": await self.model_name(), "content": content, "parse_special": parse_special}
        tokens = entries(await self._posted("/tokenize", body), "tokens")
        if not all(isinstance(token, int) for token in tokens):
            raise EngineError("the server did not answer with token ids")
        return tokens

    async def detokenize(self, tokens: list[int]) -> str:
        await self._require_nbllm("detokenize")
        return text(await self._posted("/detokenize", {"model": await self.model_name(), "tokens": tokens}), "content")

    @property
    def _is_known(self) -> bool:
        return self._server.kind != "unknown"

    async def _posted(self, path: str, body: dict[str, Any]) -> Any:
        return parsed(await self._caller.post(path, encoded(body), self.model or ""))

    async def _require_nbllm(self, what: str) -> None:
        if (await self._known_server()).kind != "nbllm":
            raise UnsupportedError(f"{what}: only nbllm's own server does it over a URL; load the model here")

    async def _known_server(self) -> Server:
        async with self._first_look:  # the others of the first requests wait for what one of them learns
            if not self._is_known:
                await self.look_up()
        return self._server

    async def _version(self) -> tuple[int, ...]:
        root = (await self._caller.root()).removesuffix("/v1")
        status, body = await self._caller.get(f"{root}/version")
        return version(parsed(body)) if status == 200 else ()

    async def _answer(self, job: Job) -> None:
        request = job.request
        async with self._slots.taken(request.priority):
            job.begin()
            if isinstance(request, EmbedRequest):
                await self._embed(job, request)
            elif isinstance(request, GenerateRequest):
                await self._generate(job, request)

    async def _generate(self, job: Job, request: GenerateRequest) -> None:
        model = await self.model_name()
        server = await self._known_server() if depends_on_server(request) else self._server
        call = generate_call(request, model, server)
        url, body = await self._caller.root() + call.path, encoded(call.body)

        async def ask() -> None:
            reader = StreamReader(request.sampling.n)
            try:
                async with self._caller.accepted(url, body, model) as response:
                    await self._read(response, reader, job)
            except TemporaryError:
                if not reader.is_complete:  # all that can be missing then is the usage
                    raise
            self._caller.raise_if_cut_short(reader, model)
            self._count(reader.usage)
            for chunk in reader.last_chunks(job.seed, job.timings()):
                job.give(chunk)

        await self._caller.retried(ask, lambda: not job.has_answered)

    async def _read(self, response: httpx.Response, reader: StreamReader, job: Job) -> None:
        is_stream = "text/event-stream" in response.headers.get("Content-Type", "")
        parser = SseParser()
        whole: list[bytes] = []
        async for piece in response.aiter_bytes():
            if not is_stream:
                whole.append(piece)
                continue
            for data in parser.push(piece):
                _take(data, reader, job)
            if reader.is_done:
                return
        rest = parser.finish() if is_stream else [b"".join(whole).decode("utf-8", errors="replace")]
        for data in rest:
            _take(data, reader, job)

    async def _embed(self, job: Job, request: EmbedRequest) -> None:
        import numpy as np

        model = await self.model_name()
        for start in range(0, len(request.texts), _TEXTS_A_CALL):
            texts = request.texts[start : start + _TEXTS_A_CALL]
            call: Call = embeddings_call(texts, model)
            rows, usage = vectors(await self._caller.post(call.path, encoded(call.body), model), len(texts))
            self._count(usage)
            for index, row in enumerate(rows):
                vector = np.asarray(row, np.float32)
                unit = vector / (np.linalg.norm(vector) or 1.0)
                self.embedding_length = len(row)
                told = usage if index == 0 else Usage()
                job.give(Chunk(index=start + index, finish_reason="stop", embedding=unit, usage=told))

    def _count(self, usage: Usage) -> None:
        self.usage = _sum(self.usage, usage)


def encoded(body: object) -> bytes:
    """Raises InvalidRequestError when a text in it is no text."""
    import msgspec

    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise InvalidRequestError("a text holds half of a surrogate pair, which is no character") from None
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as exc:
        raise InvalidRequestError(f"the request cannot be written as JSON: {exc}"[:200]) from None


def _take(data: str, reader: StreamReader, job: Job) -> None:
    for chunk in reader.read(data):
        job.give(chunk)
    job.usage = reader.usage


def _sum(first: Usage, second: Usage) -> Usage:
    return Usage(
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
        cached_tokens=first.cached_tokens + second.cached_tokens,
        reasoning_tokens=first.reasoning_tokens + second.reasoning_tokens,
    )


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    """What the work failed with; anything that is not ours is told as a failure of the engine."""
    if not task.done() or task.cancelled():
        return None
    error = task.exception()
    if error is None or isinstance(error, NbllmError):
        return error
    wrapped = EngineError(f"the request failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
