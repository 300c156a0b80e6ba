"""Requests to another server, its answers as chunks."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from nbllm.config import checked_base_url
from nbllm.core import (
    ChoiceRequest,
    EngineInfo,
    GenerateRequest,
    ModelInfo,
    RenderedPrompt,
    Request,
    SamplingParams,
    ScoreRequest,
)
from nbllm.core.numbers import as_number
from nbllm.engine.interface import EngineStats, OnChunk
from nbllm.errors import EngineClosedError, NbllmError, ParameterError, UnsupportedError
from nbllm.runner.endpoint.asker import Asker
from nbllm.runner.endpoint.caller import Caller
from nbllm.runner.endpoint.job import Job
from nbllm.runner.endpoint.loop import CLOSED, LoopThread
from nbllm.runner.endpoint.origin import Origin
from nbllm.wire.outgoing.listing import ServedModel

_INFO_S = 2.0
_INFO_AGAIN_S = 60.0


class EndpointEngine:
    """Implements `engine.interface.Engine` over an OpenAI-compatible URL. Nothing is sent before it is asked for.

    Special tokens in raw text are the server's to judge: `parse_special` does not reach it.

    Args:
        base_url: http(s)://host/v1; without the /v1 it is looked for there first.
        model: the server's name for it; None is the only one that it has.
        api_key: sent as a bearer key, and shown nowhere.
        key_name: where the key comes from, for the error that says it is wrong.
        max_concurrency: requests that go out side by side; more wait, interactive ones first.
        timeout_s: longest silence of the server; None waits, as long as the request's own timeout allows.
        max_retries: of a request that the server was too busy for or that never reached it.

    Raises:
        ParameterError: a value is of a wrong type or out of range.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        key_name: str = "api_key",
        max_concurrency: int = 8,
        timeout_s: float | None = None,
        max_retries: int = 5,
    ) -> None:
        self._origin = origin = Origin(
            base_url=checked_base_url("base_url", base_url),
            model=_checked_model(model),
            api_key=_checked_key(api_key),
            key_name=key_name,
            max_concurrency=_checked_count("max_concurrency", max_concurrency, 1),
            timeout_s=_checked_timeout(timeout_s),
            max_retries=_checked_count("max_retries", max_retries, 0),
        )
        caller = Caller(
            origin.base_url,
            api_key=origin.api_key,
            key_name=key_name,
            timeout_s=origin.timeout_s,
            max_retries=origin.max_retries,
        )
        self._max_concurrency = origin.max_concurrency
        self._asker = Asker(caller, origin.model, self._max_concurrency)
        self._loop = LoopThread(f"nbllm-{caller.base_url}")
        self._info_failed_at: float | None = None
        self._finalizer = weakref.finalize(self, _close, self._loop, self._asker)

    def __repr__(self) -> str:
        return f"<EndpointEngine {self._summary()}>"

    @property
    def info(self) -> EngineInfo:
        """What the server says of the model; 0 and "" for what it does not say, or while it cannot be reached."""
        return self._described(self._asker.served or self._looked_up())

    @property
    def origin(self) -> Origin:
        """What makes an engine like this one: `EndpointEngine(**dataclasses.asdict(origin))`.

        The model has its name in it, also when it was made without. Raises as `model_name` does.
        """
        return replace(self._origin, model=self.model_name())

    def model_name(self) -> str:
        """The server's name for the model, which it is asked for when none was given.

        Raises:
            ModelNotFoundError: it has none, or several: the message lists them.
            EngineError, ModelError: it cannot be asked.
        """
        return self._asker.model or self._loop.call(self._asker.model_name())

    def submit(self, request: Request, on_chunk: OnChunk) -> Job:
        if isinstance(request, ScoreRequest):
            raise UnsupportedError("score: another server does not say how likely a given text is; load the model here")
        if isinstance(request, ChoiceRequest):
            raise UnsupportedError(
                "choose: another server does not say how likely each choice is; load the model here, or let it answer "
                "with one of them: chat(choice=...), classify without proba"
            )
        self._asker.check(request)
        job = Job(request, on_chunk, self._cancel)
        self._loop.run(self._asker.serve(job))
        return job

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        return self._loop.call(self._asker.tokenize(text, parse_special))

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._loop.call(self._asker.detokenize(list(map(int, tokens))))

    def render(self, request: GenerateRequest) -> RenderedPrompt:
        raise UnsupportedError("another server does not show what a chat becomes: its usage counts the prompt's tokens")

    def stats(self) -> EngineStats:
        asker = self._asker
        return EngineStats(
            num_running=sum(job.is_running for job in tuple(asker.jobs)),
            num_waiting=sum(job.is_waiting for job in tuple(asker.jobs)),
            prompt_tokens=asker.usage.prompt_tokens,
            completion_tokens=asker.usage.completion_tokens,
            cached_tokens=asker.usage.cached_tokens,
        )

    def close(self) -> None:
        self._finalizer()

    def _cancel(self, job: Job) -> None:
        async def stop() -> None:
            job.stop("interrupted")

        with suppress(EngineClosedError):
            self._loop.run(stop())

    def _looked_up(self) -> ServedModel | None:
        failed_at = self._info_failed_at
        if self._loop.is_current or (failed_at is not None and time.monotonic() - failed_at < _INFO_AGAIN_S):
            return None
        with suppress(NbllmError, TimeoutError):
            self._loop.call(self._look_up_soon())
        if self._asker.served is None:
            self._info_failed_at = time.monotonic()
        return self._asker.served

    async def _look_up_soon(self) -> None:
        async with asyncio.timeout(_INFO_S):
            await self._asker.look_up()

    def _described(self, served: ServedModel | None) -> EngineInfo:
        known = served or ServedModel(name=self._asker.model or "")
        model = ModelInfo(
            name=known.name,
            path="",
            size_bytes=known.size_bytes,
            parameters=known.parameters,
            context_length=known.trained_length or known.context_length,
            vocabulary_size=known.vocabulary_size,
            embedding_length=self._asker.embedding_length,
            loaded=True,
        )
        return EngineInfo(
            model=model,
            context_length=known.context_length,
            max_sequences=self._max_concurrency,
            kv_tokens=0,
            kv_type="",
            gpu_layers=0,
            defaults=SamplingParams(),
            summary=self._summary(),
        )

    def _summary(self) -> str:
        return f"{self._asker.model or 'the model'} at {self._asker.base_url}"


def _close(loop: LoopThread, asker: Asker) -> None:
    loop.close(asker.close(EngineClosedError(CLOSED)))


def _checked_key(key: object) -> str | None:
    if key is None or key == "":
        return None
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or " " in key.strip():
        raise ParameterError(
            "api_key", "must be a text of ASCII letters, digits and signs, as the server's owner gave it"
        )
    return key.strip()


def _checked_model(model: object) -> str | None:
    if model is not None and (not isinstance(model, str) or not model.strip()):
        raise ParameterError("model", f"must be the server's name for a model, not {model!r:.100}")
    return model


def _checked_timeout(timeout_s: object) -> float | None:
    number = as_number(float, timeout_s)
    if timeout_s is not None and (number is None or number <= 0):
        raise ParameterError("timeout", f"must be seconds above 0, not {timeout_s!r:.100}")
    return number


def _checked_count(name: str, value: object, low: int) -> int:
    number = as_number(int, value)
    if number is None or not low <= number <= 1000:
        raise ParameterError(name, f"must be a whole number from {low} to 1000, not {value!r:.100}")
    return int(number)
