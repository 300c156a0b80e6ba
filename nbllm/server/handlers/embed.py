"""`POST /v1/embeddings`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import allow_unauthenticated

from nbllm.core import EmbedRequest
from nbllm.errors import ParameterError
from nbllm.server.handlers.base import OpenAIHandler, gathered, priority
from nbllm.server.tailoring import tailored
from nbllm.wire.openai.embeddings import EmbedCall, embeddings_body, parse_embeddings

if TYPE_CHECKING:
    from nbllm.server.naming import Target


class EmbeddingsHandler(OpenAIHandler):
    """Texts as unit vectors."""

    scope = "embeddings"
    route = "embeddings"

    @allow_unauthenticated
    async def post(self) -> None:
        call = parse_embeddings(self.body())
        await self.working(self._answer, call)

    async def _answer(self, call: EmbedCall) -> None:
        target = await self.target_of(call.model, user=call.user, unknown=call.unknown)
        texts = call.inputs if call.inputs is not None else await self._texts(call, target)
        request = EmbedRequest(texts=texts, timeout_s=call.timeout_s, priority=priority(len(texts)))
        request = tailored(target, request, call.lora)
        flight = await self.service.router.open(target, request, self.wish(call.keep_alive))
        vectors, prompt_tokens = await gathered(flight, len(texts))
        body = embeddings_body(target.name, vectors, prompt_tokens, in_base64=call.base64, dimensions=call.dimensions)
        self.count(body["usage"])
        self.finish(body)

    async def _texts(self, call: EmbedCall, target: Target) -> tuple[str, ...]:
        """What token ids say; they are refused unless the owner of the server says that they are this model's."""
        if not self.service.limits.allow_token_ids:
            raise ParameterError(
                "input",
                "holds token ids, which another tokenizer may have made: the vectors would be wrong. Send texts; with "
                "LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)",
            )
        wanted = call.tokens or ()
        return await self.service.router.ask(
            target, self.wish(call.keep_alive), lambda engine: tuple(engine.detokenize(ids) for ids in wanted)
        )
