"""An engine that says what a test enqueued, and remembers what it was asked."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from nbllm.core import (
    ChoiceRequest,
    Chunk,
    EmbedRequest,
    EngineInfo,
    FinishReason,
    GenerateRequest,
    ModelInfo,
    RenderedPrompt,
    Request,
    ScoreRequest,
    Timings,
    TokenLogprob,
    Usage,
)
from nbllm.engine.defaults import STATED
from nbllm.engine.interface import EngineStats, OnChunk
from nbllm.engine.prompt import Prompts
from nbllm.errors import EngineClosedError, EngineError
from nbllm.testing.toy import ToyBackend
from nbllm.testing.vocabulary import (
    EMBEDDING_LENGTH,
    IM_END,
    TOY_MODEL,
    noise,
)

Piece = str | Chunk | BaseException


@dataclass(frozen=True, slots=True)
class _Script:
    """What one answer will be."""

    pieces: tuple[Piece, ...]
    waits: bool


@dataclass(eq=False, slots=True)
class ScriptedTicket:
    """A request that a ScriptedEngine answered; the answers that wait for a cancel are in `pending`."""

    on_chunk: OnChunk
    pending: list[Chunk] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return not self.pending

    def cancel(self) -> None:
        pending, self.pending = self.pending, []
        for chunk in pending:
            self.on_chunk(chunk)


class ScriptedEngine:
    """Implements `engine.interface.Engine`: gives out what was enqueued, at once and in the caller's thread.

    Attributes:
        requests: what was submitted, in order.
        tickets: what `submit` gave back.
    """

    def __init__(self, model: ModelInfo = TOY_MODEL) -> None:
        self.requests: list[Request] = []
        self.tickets: list[ScriptedTicket] = []
        self.is_closed = False
        self.info = EngineInfo(
            model=replace(model, loaded=True),
            context_length=4096,
            max_sequences=4,
            kv_tokens=16384,
            kv_type="f16",
            gpu_layers=0,
            defaults=STATED,
            summary="scripted",
        )
        self._scripts: deque[_Script] = deque()
        self._backend = ToyBackend()
        self._prompts = Prompts(self._backend)

    def enqueue(self, answer: Piece | Iterable[Piece], *, until_cancelled: bool = False) -> None:
        """Say what the next answer is; a request for `n` answers takes n of them.

        A ChoiceRequest takes one, and finds that text likeliest among its choices; without any, the first.

        Args:
            answer: a text, an exception, or pieces: texts, chunks and, last, an exception that ends the answer. An
                exception alone is raised by `submit`.
            until_cancelled: after the pieces the answer hangs until its ticket is cancelled.
        """
        pieces = (answer,) if isinstance(answer, str | Chunk | BaseException) else tuple(answer)
        self._scripts.append(_Script(pieces, until_cancelled))

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        if self.is_closed:
            raise EngineClosedError("the model was closed; load it again with nbllm.load")
        self.requests.append(request)
        ticket = ScriptedTicket(on_chunk)
        if isinstance(request, ChoiceRequest):
            self._choose(request, ticket)
        for index, script in enumerate(self._next_scripts(request)):
            if len(script.pieces) == 1 and isinstance(script.pieces[0], BaseException):
                raise script.pieces[0]
            *chunks, last = self._chunks(request, script, index)
            ticket.pending.append(last)
            for chunk in chunks if script.waits else [*chunks, ticket.pending.pop()]:
                on_chunk(chunk)
        for chunk in _numbers(request):
            on_chunk(chunk)
        self.tickets.append(ticket)
        return ticket

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        return self._backend.tokenize(text, add_special=False, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._backend.detokenize(tokens).decode("utf-8", errors="replace")

    def render(self, request: GenerateRequest) -> RenderedPrompt:
        return self._prompts.prepare(request).rendered

    def stats(self) -> EngineStats:
        return EngineStats(num_running=sum(not ticket.is_done for ticket in self.tickets))

    def close(self) -> None:
        self.is_closed = True

    def _choose(self, request: ChoiceRequest, ticket: ScriptedTicket) -> None:
        script = self._scripts.popleft() if self._scripts else _Script((), waits=False)
        error = next((piece for piece in script.pieces if isinstance(piece, BaseException)), None)
        if error is not None and len(script.pieces) == 1:
            raise error
        said = "".join(piece for piece in script.pieces if isinstance(piece, str)) or request.choices[0]
        for index, choice in enumerate(request.choices):
            chunk = _chosen(index, choice, -0.5 if choice == said else -5.0)
            if error is not None:
                chunk = replace(chunk, finish_reason="error", error=error, token_logprobs=None)
            elif script.waits:
                chunk = replace(chunk, finish_reason="interrupted", token_logprobs=None)
            ticket.pending.append(chunk)
        if not script.waits:
            ticket.cancel()

    def _next_scripts(self, request: Request) -> list[_Script]:
        wanted = request.sampling.n if isinstance(request, GenerateRequest) else 0
        if wanted > len(self._scripts):
            raise EngineError("the script is at its end: enqueue an answer for each one that is asked for")
        return [self._scripts.popleft() for _ in range(wanted)]

    def _chunks(self, request: Request, script: _Script, index: int) -> Iterator[Chunk]:
        """The pieces as chunks; the last one always has a finish_reason."""
        reason: FinishReason = "interrupted" if script.waits else "stop"
        error: BaseException | None = None
        tokens = 0
        for piece in script.pieces:
            if isinstance(piece, BaseException):
                reason, error = "error", piece
                continue
            chunk = Chunk(text=piece, tokens=tuple(self.tokenize(piece))) if isinstance(piece, str) else piece
            tokens += len(chunk.tokens)
            yield replace(chunk, index=index)
            if chunk.finish_reason is not None:
                return
        prompt = len(self.render(request).tokens) if isinstance(request, GenerateRequest) else 0
        usage = Usage(prompt_tokens=prompt, completion_tokens=tokens)
        yield Chunk(index=index, finish_reason=reason, error=error, usage=usage, timings=Timings(), seed=0)


def _chosen(index: int, choice: str, logprob: float) -> Chunk:
    """A choice whose likelihood is all in its first token."""
    tokens = choice.encode("utf-8", "replace")
    entries = [TokenLogprob(byte, bytes([byte]), 0.0 if place else logprob) for place, byte in enumerate(tokens)]
    end = TokenLogprob(IM_END, b"", 0.0)
    usage = Usage(prompt_tokens=len(tokens))
    return Chunk(index=index, finish_reason="stop", token_logprobs=(*entries, end), usage=usage, timings=Timings())


def _numbers(request: Request) -> Iterator[Chunk]:
    """Answers to requests for numbers, made from the texts: the same text has the same vector."""
    if isinstance(request, EmbedRequest):
        import numpy as np

        for index, text in enumerate(request.texts):
            digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
            vector = noise(int.from_bytes(digest, "little"), EMBEDDING_LENGTH)
            made = (vector / (np.linalg.norm(vector) if request.unit else 1.0)).astype(np.float32)
            yield Chunk(index=index, finish_reason="stop", embedding=made, usage=Usage(prompt_tokens=len(text)))
    elif isinstance(request, ScoreRequest):
        entries = tuple(TokenLogprob(byte, bytes([byte]), -1.0) for byte in request.continuation.encode())
        yield Chunk(finish_reason="stop", token_logprobs=entries, usage=Usage(prompt_tokens=len(request.prompt)))
