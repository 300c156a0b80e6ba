"""`POST /v1/tokenize`, `/v1/detokenize` and `/v1/chat/completions/input_tokens`."""

from __future__ import annotations

from jupyter_server.auth.decorator import allow_unauthenticated

from nbllm.server.handlers.base import OpenAIHandler
from nbllm.server.tailoring import tailored
from nbllm.wire.openai import tokens
from nbllm.wire.openai.chat import ChatCall


class TokenizeHandler(OpenAIHandler):
    """Text to ids."""

    scope = "chat"
    route = "tokenize"

    @allow_unauthenticated
    async def post(self) -> None:
        await self.working(self._answer, tokens.parse_tokenize(self.body()))

    async def _answer(self, call: tokens.TokenizeCall) -> None:
        target = await self.target_of(call.model, unknown=call.unknown)
        ids = await self.service.router.ask(
            target, self.wish(), lambda engine: engine.tokenize(call.content, parse_special=call.parse_special)
        )
        self.finish(tokens.tokenize_body(target.name, ids))


class DetokenizeHandler(OpenAIHandler):
    """Ids to text."""

    scope = "chat"
    route = "detokenize"

    @allow_unauthenticated
    async def post(self) -> None:
        await self.working(self._answer, tokens.parse_detokenize(self.body()))

    async def _answer(self, call: tokens.DetokenizeCall) -> None:
        target = await self.target_of(call.model, unknown=call.unknown)
        text = await self.service.router.ask(target, self.wish(), lambda engine: engine.detokenize(call.tokens))
        self.finish(tokens.detokenize_body(target.name, text))


class InputTokensHandler(OpenAIHandler):
    """How many tokens a chat's prompt has, without answering it."""

    scope = "chat"
    route = "chat/completions/input_tokens"

    @allow_unauthenticated
    async def post(self) -> None:
        await self.working(self._answer, tokens.parse_input_tokens(self.body()))

    async def _answer(self, call: ChatCall) -> None:
        target = await self.target_of(call.model, user=call.user, unknown=call.unknown)
        wish = self.wish(call.keep_alive)
        request = tailored(target, call.request, call.lora, assumed=call.assumed)
        prompt = await self.service.router.ask(target, wish, lambda engine: engine.render(request))
        self.finish(tokens.input_tokens_body(len(prompt.tokens)))
