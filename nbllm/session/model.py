"""A loaded model, as a cell uses it."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from nbllm.core import Chunk, EmbedRequest, EngineInfo, GenerateRequest, Request, ScoreRequest, TokenLogprob
from nbllm.core.presets import Preset, applied
from nbllm.engine.interface import Engine, EngineStats, Ticket, aiter_chunks, iter_chunks, next_chunk
from nbllm.errors import EngineError, NbllmError, ParameterError
from nbllm.session.choosing import Choices, choice_request
from nbllm.session.closed import ClosedEngine
from nbllm.session.conversation import Conversation
from nbllm.session.requests import Options, Prompt, messages
from nbllm.session.response import Collector, Response, combined
from nbllm.session.tailored import TailoredEngine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WINDOW = 256
"""Prompts of `chat_many` that are with the engine at a time: enough to find common prefixes, and memory stays flat."""
_LAST_WORDS_S = 2.0

Progress = Callable[[int, int], None]
_R = TypeVar("_R", bound=Request)


class Score(NamedTuple):
    """How likely a continuation is.

    Attributes:
        logprob: natural logarithm of the probability of the whole continuation.
        tokens: of each of its tokens, given all before it.
    """

    logprob: float
    tokens: tuple[TokenLogprob, ...]


class Model:
    """A loaded model. Get one from `nbllm.load`; every method is safe on any thread.

    Sampling options are those of `nbllm.SamplingParams`; besides them `chat` and its relatives take

    Args:
        system: a system message to go before the others.
        response_format: a JSON Schema (dict), a pydantic model, a list of choices, "json_object", or OpenAI's form;
            the answer is guaranteed to fit, unless it is cut short (`finish_reason="length"`).
        regex, choice, grammar: the other constraints; a grammar is Lark or GBNF text.
        timeout: seconds for everything, waiting included; the text so far is kept, with finish_reason "timeout".
        reproducible: the same text for the same request whatever else runs, on this machine and build, at some cost
            in speed.
        cache_prompt: reuse the evaluated prefix of earlier prompts, and keep this one's (default True).
        template_options: variables for the chat template, such as {"enable_thinking": False}.
        lora: LoRA adapters to compute with: a path, {"path": ..., "scale": 0.5}, {"id": 0, "scale": 0.5} for one of
            the preset's own, or a list of them; [] is none (default: those of the preset).
        continue_final: go on with the last message, an assistant's, instead of answering it.
        tools: functions that the model may ask to be called: Python functions with types and a docstring, pydantic
            models, `nbllm.core.Tool`s or OpenAI's dicts. What it asks for is in `Response.tool_calls`.
        tool_choice: "auto" (default), "none", "required" (a call is guaranteed), or the name of the tool to call.
        parallel_tool_calls: whether one answer may hold several calls (default True).

    A preset's model is asked like any other: what the preset says is part of each request, and what a call says wins.

    Attributes:
        last: the last Response, or list of them, that this model made, also when it was interrupted.
    """

    def __init__(
        self, engine: Engine, on_close: Callable[[], bool | None] | None = None, preset: Preset | None = None
    ) -> None:
        """Use an engine.

        Args:
            on_close: called by `close`; False says that others use the engine, which is left to them.
            preset: what the requests get before the engine sees them.
        """
        self._base, self._preset = engine, preset
        self._engine: Engine = engine if preset is None else TailoredEngine(engine, preset)
        self._on_close = on_close
        self.last: Response | list[Response] | None = None

    def __repr__(self) -> str:
        return f"<nbllm.Model {self.info.summary}>"

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    @property
    def name(self) -> str:
        return self.info.model.name

    @property
    def engine(self) -> Engine:
        """What answers; for surfaces that want tickets and chunks. It gives each request what the preset says."""
        return self._engine

    @property
    def base_engine(self) -> Engine:
        """The same without the preset, for requests that `applied` gave it already. Other models may use it too."""
        return self._base

    @property
    def preset(self) -> Preset | None:
        """What this model adds to its requests, None if nothing."""
        return self._preset

    def applied(self, request: _R) -> _R:
        """The request with what the preset says: what answers are kept by, and `base_engine` is asked."""
        return request if self._preset is None else applied(self._preset, request)

    @property
    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self) -> None:
        """Free the model's memory. Requests in flight end with an error; closing twice is harmless.

        If other presets of the same base, or the base, are loaded, the memory is theirs and stays, and what was asked
        is answered to its end.
        """
        if self._on_close is not None and self._on_close() is False:
            self._base = self._engine = ClosedEngine(self.info, self.name)
        self._engine.close()

    # ---- text

    def chat(self, prompt: Prompt, **options: Any) -> Response:
        """Answer a prompt or a list of messages.

        Raises:
            InvalidRequestError: the request cannot be done; the message says what to change.
            EngineError: the engine failed.
            KeyboardInterrupt: it was interrupted; the text so far is in `last`.
        """
        sorted_options = self._options(options)
        return self._answer(sorted_options.chat(prompt))

    def complete(self, prompt: str | Sequence[int], **options: Any) -> Response:
        """Continue raw text, or token ids, without a chat template; 16 tokens unless `max_tokens` says otherwise."""
        sorted_options = self._options(options)
        if sorted_options.system is not None:
            raise ParameterError("system", "raw completion has no messages; use chat, or put it into the text")
        if sorted_options.continue_final:
            raise ParameterError("continue_final", "raw completion continues its text anyway; leave it out")
        if sorted_options.tools:
            raise ParameterError("tools", "raw completion has no messages to call them in; use chat")
        return self._answer(sorted_options.completion(prompt))

    def stream(self, prompt: Prompt, **options: Any) -> Iterator[Chunk]:
        """Answer piece by piece; leaving the loop early cancels. An engine's failure is raised, not given out."""
        request = self._options(options).chat(prompt)
        return self._stream(request)

    async def achat(self, prompt: Prompt, **options: Any) -> Response:
        """`chat` that leaves the event loop free; cancelling the task cancels the request."""
        request = self._options(options).chat(prompt)
        collectors = self._collectors(request)
        try:
            async for chunk in aiter_chunks(self._engine, request):
                collectors[chunk.index].add(chunk)
        finally:
            self.last = combined(collectors)
        return _checked(self.last)

    async def astream(self, prompt: Prompt, **options: Any) -> AsyncIterator[Chunk]:
        """`stream` for an event loop."""
        async for chunk in aiter_chunks(self._engine, self._options(options).chat(prompt)):
            _raise_error(chunk.error)
            yield chunk

    def chat_many(
        self,
        prompts: Sequence[Prompt],
        *,
        on_error: Literal["raise", "keep"] = "raise",
        progress: Progress | None = None,
        **options: Any,
    ) -> list[Response]:
        """Answer many prompts together, in the order given; a common beginning is evaluated once.

        Args:
            on_error: "raise" ends with the first error; "keep" puts it into that prompt's Response.
            progress: called with the numbers of finished and of all prompts after each that finishes.

        Raises:
            KeyboardInterrupt: it was interrupted; what is finished or begun is in `last`.
        """
        if on_error not in ("raise", "keep"):
            raise ParameterError("on_error", f"must be 'raise' or 'keep', not {on_error!r}")
        if isinstance(prompts, str) or not isinstance(prompts, Iterable):
            raise ParameterError("prompts", "must be a list of prompts; for a single one use chat")
        sorted_options = self._options(options)
        if sorted_options.sampling.n != 1:
            raise ParameterError("n", "chat_many gives one answer a prompt; repeat the prompt for more")
        return _Many(self, list(prompts), sorted_options, on_error, progress).run()

    # ---- numbers

    def embed(self, texts: str | Sequence[str], *, timeout: float | None = None) -> NDArray[np.float32]:
        """Unit vectors of texts, shape (number of texts, embedding length), float32.

        The mean of the last layer's states over the tokens, unless the model's file names another pooling.
        """
        import numpy as np

        wanted = (texts,) if isinstance(texts, str) or not isinstance(texts, Iterable) else tuple(texts)
        if not all(isinstance(text, str) for text in wanted):
            raise ParameterError("texts", "must be a string or a list of strings")
        rows = np.zeros((len(wanted), self.info.model.embedding_length or self._embedding_length()), np.float32)
        if not wanted:
            return rows
        for chunk in iter_chunks(self._engine, EmbedRequest(texts=wanted, timeout_s=timeout)):
            _raise_unfinished(chunk)
            rows[chunk.index] = chunk.embedding
        return rows

    def score(self, prompt: Prompt, continuation: str, *, chat: bool = False, timeout: float | None = None) -> Score:
        """The log-likelihood of a continuation after a prompt.

        Args:
            chat: take the prompt as chat messages, and the continuation as the beginning of the answer; otherwise
                both are raw text, tokenized each on its own.
        """
        if chat:
            request = ScoreRequest(prompt="", continuation=continuation, messages=messages(prompt), timeout_s=timeout)
        elif isinstance(prompt, str):
            request = ScoreRequest(prompt=prompt, continuation=continuation, timeout_s=timeout)
        else:
            raise ParameterError("prompt", "must be a string; for messages give chat=True")
        (chunk,) = iter_chunks(self._engine, request)
        _raise_unfinished(chunk)
        tokens = chunk.token_logprobs or ()
        return Score(sum(entry.logprob for entry in tokens), tokens)

    def choose(
        self,
        prompt: Prompt,
        choices: Iterable[str],
        *,
        system: str | None = None,
        template_options: Mapping[str, Any] | None = None,
        reproducible: bool = False,
        cache_prompt: bool = True,
        timeout: float | None = None,
    ) -> Choices:
        """How likely the model is to answer with each of these texts, read from its logits: nothing is generated.

        What is computed is the probability of the text and then of the end of the answer, so that "no" is not credited
        with "nothing". A text is tokenized on its own, and how the model might spell it otherwise does not count.

        Raises:
            InvalidRequestError: the request cannot be done; the message says what to change.
            TimeoutError: the timeout passed.
        """
        options = Options.of(
            {
                "system": system,
                "template_options": template_options,
                "reproducible": reproducible,
                "cache_prompt": cache_prompt,
                "timeout": timeout,
            }
        )
        request = choice_request(prompt, choices, options)
        found: dict[str, float] = {}
        for chunk in iter_chunks(self._engine, request):
            _raise_unfinished(chunk)
            found[request.choices[chunk.index]] = sum(entry.logprob for entry in chunk.token_logprobs or ())
        return Choices.of({choice: found[choice] for choice in request.choices})

    def count_tokens(self, prompt: Prompt, *, chat: bool | None = None) -> int:
        """Tokens of a text, or of messages as the chat template renders them.

        Args:
            chat: render a string as a chat message too; None does so for anything that is not a string.
        """
        if isinstance(prompt, str) and not chat:
            return len(self._engine.tokenize(prompt))
        return len(self._engine.render(GenerateRequest(messages=messages(prompt))).tokens)

    # ---- conversations

    def conversation(self, system: str | None = None, name: str | None = None) -> Conversation:
        """Start a conversation with this model."""
        return Conversation(self, system=system, name=name)

    # ---- inside

    def _options(self, options: Mapping[str, Any]) -> Options:
        return Options.of(options, () if self._preset is None else self._preset.adapters)

    def _embedding_length(self) -> int:
        (chunk,) = iter_chunks(self._engine, EmbedRequest(texts=("a",)))
        _raise_unfinished(chunk)
        return len(chunk.embedding)

    def _collectors(self, request: GenerateRequest) -> list[Collector]:
        return [Collector(self.name, request.constraint) for _ in range(request.sampling.n)]

    def _stream(self, request: GenerateRequest) -> Iterator[Chunk]:
        for chunk in iter_chunks(self._engine, request):
            _raise_error(chunk.error)
            yield chunk

    def _answer(self, request: GenerateRequest) -> Response:
        collectors = self._collectors(request)
        inbox: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        ticket = self._engine.submit(request, inbox.put)
        try:
            while not all(collector.is_finished for collector in collectors):
                chunk = next_chunk(inbox)
                collectors[chunk.index].add(chunk)
        except BaseException:
            _drain(ticket, inbox, collectors)
            raise
        finally:
            self.last = combined(collectors)
        return _checked(self.last)


class _Many:
    """One run of `chat_many`: a window of prompts with the engine, answers gathered by index."""

    def __init__(
        self, model: Model, prompts: list[Prompt], options: Options, on_error: str, progress: Progress | None
    ) -> None:
        self._model, self._prompts, self._options = model, prompts, options
        self._keeps_errors, self._progress = on_error == "keep", progress
        self._inbox: queue.SimpleQueue[tuple[int, Chunk]] = queue.SimpleQueue()
        self._collectors = [Collector(model.name, options.constraint) for _ in prompts]
        self._tickets: dict[int, Ticket] = {}
        self._next = self._num_done = 0

    def run(self) -> list[Response]:
        try:
            while self._num_done < len(self._prompts):
                self._fill()
                if self._tickets:
                    self._take(*self._receive())
        except BaseException:
            self._cancel()
            raise
        finally:
            responses = [collector.response() for collector in self._collectors]
            self._model.last = responses
        return responses

    def _fill(self) -> None:
        while self._next < len(self._prompts) and len(self._tickets) < _WINDOW:
            index, self._next = self._next, self._next + 1
            try:
                request = self._options.chat(self._prompts[index], priority="batch")
                self._tickets[index] = self._model.engine.submit(request, self._receiver(index))
            except NbllmError as error:
                if not self._keeps_errors:
                    raise
                self._collectors[index].add(Chunk(finish_reason="error", error=error))
                self._finished()

    def _receiver(self, index: int) -> Callable[[Chunk], None]:
        return lambda chunk: self._inbox.put((index, chunk))

    def _receive(self) -> tuple[int, Chunk]:
        while True:
            with suppress(queue.Empty):
                return self._inbox.get(timeout=0.5)

    def _take(self, index: int, chunk: Chunk) -> None:
        self._collectors[index].add(chunk)
        if chunk.finish_reason is None:
            return
        del self._tickets[index]
        if not self._keeps_errors:
            _raise_error(chunk.error)
        self._finished()

    def _finished(self) -> None:
        self._num_done += 1
        if self._progress is not None:
            self._progress(self._num_done, len(self._prompts))

    def _cancel(self) -> None:
        for ticket in self._tickets.values():
            ticket.cancel()
        with suppress(queue.Empty, KeyboardInterrupt):
            while not all(ticket.is_done for ticket in self._tickets.values()) or not self._inbox.empty():
                index, chunk = self._inbox.get(timeout=_LAST_WORDS_S)
                self._collectors[index].add(chunk)


def _drain(ticket: Ticket, inbox: queue.SimpleQueue[Chunk], collectors: Sequence[Collector]) -> None:
    """Cancel, and collect what was said until then."""
    ticket.cancel()
    with suppress(TimeoutError, KeyboardInterrupt):
        while not all(collector.is_finished for collector in collectors):
            chunk = next_chunk(inbox, _LAST_WORDS_S)
            collectors[chunk.index].add(chunk)


def _checked(response: Response) -> Response:
    for choice in (response, *response.choices):
        _raise_error(choice.error)
    return response


def _raise_error(error: BaseException | None) -> None:
    if error is not None:
        raise error


def _raise_unfinished(chunk: Chunk) -> None:
    _raise_error(chunk.error)
    if chunk.finish_reason == "timeout":
        raise TimeoutError("the timeout passed before all was computed; give a longer timeout")
    if chunk.finish_reason != "stop":
        raise EngineError(f"the request ended early: {chunk.finish_reason}")
