"""`POST /v1/chat/completions` and `POST /v1/completions`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import allow_unauthenticated

from nbllm.core import Chunk
from nbllm.server.flight import Flight
from nbllm.server.handlers.base import OpenAIHandler, priority
from nbllm.server.handlers.delivery import Delivery
from nbllm.server.tailoring import tailored
from nbllm.wire.openai.chat import ChatCall, parse_chat
from nbllm.wire.openai.chat_answer import ChatAnswer, ChatStream
from nbllm.wire.openai.completion_answer import CompletionAnswer, CompletionStream
from nbllm.wire.openai.completions import CompletionCall, parse_completion
from nbllm.wire.openai.head import Head, chat_id, completion_id

if TYPE_CHECKING:
    from nbllm.server.naming import Target
    from nbllm.server.router import Wish

Numbered = tuple[int, Chunk]
"""A chunk, and which of the prompts it answers."""


class ChatHandler(OpenAIHandler):
    """A chat, answered whole or as a stream."""

    scope = "chat"
    route = "chat/completions"

    @allow_unauthenticated
    async def post(self) -> None:
        call = parse_chat(self.body())
        await self.working(self._answer, call)

    async def _answer(self, call: ChatCall) -> None:
        target = await self.target_of(call.model, user=call.user, unknown=call.unknown)
        call = replace(call, request=tailored(target, call.request, call.lora, assumed=call.assumed))
        head = Head(chat_id(), int(time.time()), target.name, self.service.fingerprint)
        opening = self.service.router.open(target, call.request, self.wish(call.keep_alive))
        if call.stream:
            stream = ChatStream(head, call)
            with self.counting(stream.usage):
                await Delivery(self).send(self._pieces(opening, stream))
            return
        answer = ChatAnswer(head, call)
        with self.counting(answer.usage):
            async with await opening as flight:
                async for chunk in flight:
                    answer.add(self.generated(chunk))
        self.finish(answer.body())

    async def _pieces(self, opening: Awaitable[Flight], stream: ChatStream) -> AsyncGenerator[bytes]:
        async with await opening as flight:
            events = stream.begin()
            async for chunk in flight:
                for ready in (chunk, *flight.ready()):
                    events += stream.events(self.generated(ready))
                if events:
                    yield b"".join(events)
                    events = []
        yield b"".join(events + stream.finish())


class CompletionHandler(OpenAIHandler):
    """Raw text continued: several prompts at once, each a sequence of its own in the same batch."""

    scope = "chat"
    route = "completions"

    @allow_unauthenticated
    async def post(self) -> None:
        call = parse_completion(self.body())
        await self.working(self._answer, call)

    async def _answer(self, call: CompletionCall) -> None:
        target = await self.target_of(call.model, user=call.user, unknown=call.unknown)
        made = (tailored(target, request, call.lora, assumed=call.assumed) for request in call.requests)
        call = replace(call, requests=tuple(made))
        wish = self.wish(call.keep_alive)
        texts = await self._prompt_texts(call, target, wish) if call.needs_prompt_texts else None
        head = Head(completion_id(), int(time.time()), target.name, self.service.fingerprint)
        if call.stream:
            stream = CompletionStream(head, call, texts)
            with self.counting(stream.usage):
                await Delivery(self).send(self._pieces(self._chunks(call, target, wish), stream))
            return
        answer = CompletionAnswer(head, call, texts)
        with self.counting(answer.usage):
            async with contextlib.aclosing(self._chunks(call, target, wish)) as chunks:
                async for prompt, chunk in chunks:
                    answer.add(prompt, self.generated(chunk))
        self.finish(answer.body())

    async def _pieces(self, chunks: AsyncGenerator[Numbered], stream: CompletionStream) -> AsyncGenerator[bytes]:
        async with contextlib.aclosing(chunks):
            events = stream.begin()
            async for prompt, chunk in chunks:
                events += stream.events(prompt, self.generated(chunk))
                if events:
                    yield b"".join(events)
                    events = []
        yield b"".join(events + stream.finish())

    async def _chunks(self, call: CompletionCall, target: Target, wish: Wish) -> AsyncGenerator[Numbered]:
        """Of all prompts, as they come."""
        inbox: asyncio.Queue[Numbered | BaseException] = asyncio.Queue()
        opening = self.service.router.open
        async with contextlib.AsyncExitStack() as flights:
            for prompt, request in enumerate(call.requests):
                ranked = replace(request, priority=priority(len(call.requests)))
                flight = await flights.enter_async_context(await opening(target, ranked, wish))
                task = asyncio.ensure_future(_pass_on(prompt, flight, inbox))
                flights.callback(task.cancel)
            remaining = len(call.requests) * call.best_of
            while remaining:
                item = await inbox.get()
                if isinstance(item, BaseException):
                    raise item
                remaining -= item[1].finish_reason is not None
                yield item

    async def _prompt_texts(self, call: CompletionCall, target: Target, wish: Wish) -> list[str]:
        return await self.service.router.ask(
            target, wish, lambda engine: [engine.render(request).text for request in call.requests]
        )


async def _pass_on(prompt: int, flight: AsyncIterator[Chunk], inbox: asyncio.Queue[Numbered | BaseException]) -> None:
    try:
        async for chunk in flight:
            inbox.put_nowait((prompt, chunk))
    except Exception as error:  # noqa: BLE001  # whoever waits at the other end raises it
        inbox.put_nowait(error)
