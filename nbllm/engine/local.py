"""The engine in this process: a model, its lanes, and the thread that steps them."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nbllm.chat import constraints
from nbllm.chat.reasoning import ReasoningSplitter
from nbllm.core import (
    RANGES,
    ChoiceRequest,
    EmbedRequest,
    EngineInfo,
    GenerateRequest,
    ModelInfo,
    RenderedPrompt,
    Request,
    SamplingParams,
    ScoreRequest,
    TokenLogprob,
)
from nbllm.engine.adapters import AdapterFiles
from nbllm.engine.answer import Answer, Clocks
from nbllm.engine.aside import aside
from nbllm.engine.backend import Backend
from nbllm.engine.calling import Calling
from nbllm.engine.choicejob import ChoiceJob
from nbllm.engine.choices import Choices
from nbllm.engine.defaults import COMPLETION_TOKENS, STATED, resolved
from nbllm.engine.driver import Driver
from nbllm.engine.interface import EngineStats, OnChunk
from nbllm.engine.jobs import EmbedJob, GenerateJob, Job, ScoreJob
from nbllm.engine.lane import Lane
from nbllm.engine.lanemaker import LaneMaker
from nbllm.engine.lanes import AdaptedLanes, LaneKey
from nbllm.engine.likelihoods import Likelihoods
from nbllm.engine.machine import available_memory
from nbllm.engine.plan import Plan
from nbllm.engine.prompt import Prompt, Prompts
from nbllm.engine.sequence import Sequence as Tokens
from nbllm.engine.textstream import StopStream
from nbllm.engine.tickets import LaneTicket
from nbllm.errors import ContextOverflowError, EngineClosedError, InvalidRequestError, UnsupportedError

if TYPE_CHECKING:
    from nbllm.engine.backend import Matcher


class LocalEngine:
    """Answers requests with a model of this process. Every method is safe on any thread.

    Args:
        backend: owned from here on.
        plan: the memory plan that was made for it.
        driver: steps this engine's lanes.
        flash_attention: of `EngineInfo`.
        threads: most decode threads, None for all cores that the process may use.
        check_adapter: raises ModelLoadError for a LoRA file that llama.cpp must not see.
        memory_fraction: of the free memory, what a context for adapters may take.
        free_memory: asked when one is made.
    """

    def __init__(
        self,
        backend: Backend,
        model: ModelInfo,
        plan: Plan,
        driver: Driver,
        *,
        gpu_layers: int = 0,
        flash_attention: bool | None = None,
        threads: int | None = None,
        check_adapter: Callable[[str], None] = lambda path: None,
        memory_fraction: float = 0.75,
        free_memory: Callable[[], int] = available_memory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend, self._plan, self._driver, self._clock = backend, plan, driver, clock
        self._prompts = Prompts(backend)
        self._choices = Choices(backend, self._prompts)
        self._recommended = backend.recommended_sampling()
        self._uids = itertools.count()
        self._threads = threads
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._fixed: Lane | None = None
        self._adapter_files = AdapterFiles(check_adapter)
        self._maker = LaneMaker(
            backend,
            model,
            plan,
            self._adapter_files,
            wake=driver.wake,
            clock=clock,
            memory_fraction=memory_fraction,
            free_memory=free_memory,
        )
        self._adapted = AdaptedLanes(self._maker.adapted, driver, threads=threads, clock=clock)
        with aside(self._prompts.warm_up):
            self._free = self._attached(self._maker.free())
        self.info = EngineInfo(
            model=replace(model, loaded=True),
            context_length=plan.context_length,
            max_sequences=plan.max_sequences,
            kv_tokens=plan.kv_tokens,
            kv_type=plan.kv_type,
            gpu_layers=gpu_layers,
            defaults=self._recommended.or_else(STATED),
            summary=plan.summary,
            flash_attention=flash_attention,
        )

    # ---- the engine protocol

    def submit(self, request: Request, on_chunk: OnChunk) -> LaneTicket:
        """Take a request in; see `Engine.submit`."""
        self._check_usable()
        self._free.check_open()  # before the prompt is tokenized: at the end of the process nothing native may run
        submitted = self._clock()
        adapters = self._adapter_files.set_of(request.adapters) if request.adapters else ()
        jobs = self._jobs(request, submitted)
        deadline = None if request.timeout_s is None else submitted + request.timeout_s
        if adapters:
            return self._adapted.submit(LaneKey(adapters, _is_fixed(request)), jobs, on_chunk, deadline)
        lane = self._lane_for(request)
        ticket = LaneTicket(lane, jobs, on_chunk, deadline)
        lane.submit(ticket)
        return ticket

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        self._check_usable()
        return self._backend.tokenize(text, add_special=False, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        self._check_usable()
        self._backend.check_ids(tokens, "tokens")
        return self._backend.detokenize(tokens).decode("utf-8", errors="replace")

    def render(self, request: GenerateRequest) -> RenderedPrompt:
        self._check_usable()
        return self._prompts.prepare(request).rendered

    def stats(self) -> EngineStats:
        lanes = [lane for lane in (self._free, self._fixed) if lane is not None]
        loads = [*(lane.load for lane in lanes), *self._adapted.loads]
        counts = [*(lane.counters for lane in lanes), self._adapted.counters]
        running, waiting, cells, stored = (sum(column) for column in zip(*loads, strict=True))
        return EngineStats(
            num_running=running,
            num_waiting=waiting,
            pool_cells=cells,
            stored_bytes=stored,
            threads=self._driver.threads,
            num_steps=sum(count.num_steps for count in counts),
            prompt_tokens=sum(count.prompt_tokens for count in counts),
            completion_tokens=sum(count.completion_tokens for count in counts),
            cached_tokens=sum(count.cached_tokens for count in counts),
        )

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if os.getpid() != self._pid:
            return
        for lane in (self._free, self._fixed):
            if lane is not None:
                self._driver.detach(lane)
        self._adapted.close()
        self._backend.close()

    # ---- lanes

    def _lane_for(self, request: Request) -> Lane:
        if not _is_fixed(request):
            return self._free
        with self._lock:
            if self._fixed is None:
                self._fixed = self._attached(self._maker.fixed())
            return self._fixed

    def _attached(self, lane: Lane) -> Lane:
        self._driver.attach(lane, self._threads)
        return lane

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise EngineClosedError(
                "this model belongs to the process that this one was forked from; start workers with "
                'multiprocessing.get_context("spawn") and load it there'
            )
        if self._closed:
            raise EngineClosedError("the model was closed; load it again with nbllm.load")

    # ---- jobs

    def _jobs(self, request: Request, submitted: float) -> tuple[Job, ...]:
        if isinstance(request, EmbedRequest):
            return tuple(self._embed_job(request, index, submitted) for index in range(len(request.texts)))
        if isinstance(request, ScoreRequest):
            return (self._score_job(request, submitted),)
        if isinstance(request, ChoiceRequest):
            return (self._choice_job(request, submitted),)
        return self._generate_jobs(request, submitted)

    def _generate_jobs(self, request: GenerateRequest, submitted: float) -> tuple[Job, ...]:
        prompt = self._prompts.prepare(request)
        params = self._parameters(request)
        limit = self._limit(request, len(prompt.tokens), params.max_tokens)
        self._backend.check_ids(list(params.logit_bias), "logit_bias")
        calling = None if prompt.calls is None else Calling(self._backend, request, prompt)
        grammar = calling.grammar if calling is not None else _grammar(request)
        jobs: list[Job] = []
        for index in range(params.n):
            matcher = None if grammar is None else self._backend.make_matcher(grammar, constraints.parser_limits())
            jobs.append(self._generate_job(request, prompt, calling, params, index, matcher, limit, submitted))
        return tuple(jobs)

    def _generate_job(
        self,
        request: GenerateRequest,
        prompt: Prompt,
        calling: Calling | None,
        params: SamplingParams,
        index: int,
        matcher: Matcher | None,
        limit: int,
        submitted: float,
    ) -> GenerateJob:
        tokens = list(prompt.tokens)
        sequence = self._prompt_sequence(request, tokens)
        seeded = replace(params, seed=((params.seed or 0) + index) % (int(RANGES["seed"].high) + 1))
        most = limit - len(tokens)
        generated = most if params.max_tokens is None else min(most, params.max_tokens)
        return GenerateJob(
            sequence,
            Answer(
                index,
                StopStream((*params.stop, *prompt.stop)),
                self._splitter(request, prompt, is_bound=matcher is not None),
                None if calling is None else calling.parser(seeded.seed),
                trims_start=bool(prompt.stop) and not request.continue_final,
            ),
            seeded,
            vocabulary=self._backend,
            pieces=self._backend.pieces if calling is None else calling.pieces,
            sampler=self._backend.make_sampler(seeded, tokens, max(1, generated)),
            matcher=matcher,
            limit=limit,
            bind=None if calling is None else calling.binder(matcher),
            likelihoods=self._prompt_likelihoods(request, prompt, seeded.top_logprobs),
            clocks=Clocks(submitted),
            one_at_a_time=request.reproducible,
        )

    def _prompt_sequence(self, request: GenerateRequest, tokens: list[int]) -> Tokens:
        """Likelihoods of the prompt need an output of each of its tokens, which a cached prefix no longer has."""
        if request.prompt_logprobs:
            return self._sequence(tokens, request.priority, 0, reuses=False)
        return self._sequence(tokens, request.priority, len(tokens) - 1, reuses=request.cache_prompt)

    def _prompt_likelihoods(self, request: GenerateRequest, prompt: Prompt, num_top: int) -> Likelihoods | None:
        if not request.prompt_logprobs:
            return None
        pieces, (first, *others) = self._prompts.pieces, prompt.tokens
        before = () if prompt.is_begun else (TokenLogprob(first, pieces[first], math.nan),)
        return Likelihoods(others, 0, pieces, num_top, before)

    def _limit(self, request: GenerateRequest, num_prompt: int, max_tokens: int | None) -> int:
        """Tokens that prompt and answer may have together.

        Raises:
            ContextOverflowError: they are fewer than the prompt needs.
            UnsupportedError: only the reproducible lane's are.
        """
        needed = num_prompt + (max_tokens != 0)
        if needed > self._plan.context_length:
            raise self._overflow(num_prompt)
        if not request.reproducible:
            return self._plan.context_length
        self._check_fixed(needed)
        return self._plan.fixed_tokens

    def _overflow(self, num_prompt: int) -> ContextOverflowError:
        trained_length = self.info.model.context_length
        return ContextOverflowError(num_prompt, self._plan.context_length, trained_length=trained_length)

    def _check_fixed(self, needed: int) -> None:
        if needed > self._plan.fixed_tokens:
            raise UnsupportedError(
                f"reproducible=True holds {self._plan.fixed_tokens:,} tokens a sequence in this machine's memory and "
                f"this prompt needs {needed:,}: shorten it, or leave reproducible out"
            )

    def _parameters(self, request: GenerateRequest) -> SamplingParams:
        params = resolved(request.sampling, self._recommended)
        if params.max_tokens is None and request.messages is None:
            return replace(params, max_tokens=COMPLETION_TOKENS)
        return params

    def _splitter(self, request: GenerateRequest, prompt: Prompt, *, is_bound: bool) -> ReasoningSplitter | None:
        """Raw text is not split, nor is an answer whose shape is given from its first character on."""
        opens = prompt.rendered.opens_reasoning
        if request.messages is None or (is_bound and not opens):
            return None
        return ReasoningSplitter(open_at_start=opens, tags=prompt.reasoning_tags)

    def _embed_job(self, request: EmbedRequest, index: int, submitted: float) -> EmbedJob:
        tokens = self._backend.tokenize(request.texts[index], add_special=True, parse_special=False)
        if not tokens or not request.texts[index]:  # some models begin even nothing with a token
            raise InvalidRequestError(f"text {index} is empty: there is nothing to embed")
        if len(tokens) > self._plan.context_length:
            raise self._overflow(len(tokens))
        sequence = self._sequence(tokens, request.priority, 0, reuses=False)
        return EmbedJob(sequence, index, self._backend.pooling, Clocks(submitted), unit=request.unit)

    def _score_job(self, request: ScoreRequest, submitted: float) -> ScoreJob:
        before = self._score_prompt(request)
        after = self._backend.tokenize(request.continuation, add_special=False, parse_special=False)
        if not before or not after:
            raise InvalidRequestError("give both a prompt and a continuation: an empty one has no likelihood")
        if len(before) + len(after) > self._plan.context_length:
            raise self._overflow(len(before) + len(after))
        tokens = [*before, *after]
        sequence = self._sequence(tokens[:-1], request.priority, len(before) - 1, reuses=True)
        return ScoreJob(sequence, tokens[-1], self._backend.pieces, Clocks(submitted))

    def _score_prompt(self, request: ScoreRequest) -> Sequence[int]:
        if request.messages is not None:
            return self._prompts.prepare(GenerateRequest(messages=request.messages, template=request.template)).tokens
        return self._backend.tokenize(request.prompt, add_special=True, parse_special=False)

    def _choice_job(self, request: ChoiceRequest, submitted: float) -> ChoiceJob:
        tokens, tree = self._choices.prepare(request)
        needed = len(tokens) + max(map(len, tree.leaves))
        if needed > self._plan.context_length:
            raise self._overflow(needed)
        if request.reproducible:
            self._check_fixed(needed)
        sequence = self._sequence(tokens, request.priority, len(tokens) - 1, reuses=request.cache_prompt)
        return ChoiceJob(sequence, tree, self._backend.pieces, Clocks(submitted))

    def _sequence(self, tokens: list[int], priority: object, outputs_from: int, *, reuses: bool) -> Tokens:
        return Tokens(
            uid=next(self._uids),
            tokens=tokens,
            num_prompt=len(tokens),
            priority="batch" if priority == "batch" else "interactive",
            outputs_from=outputs_from,
            reuses=reuses,
        )


def _is_fixed(request: Request) -> bool:
    return bool(getattr(request, "reproducible", False))


def _grammar(request: GenerateRequest) -> str | None:
    return None if request.constraint is None else constraints.grammar(request.constraint)
