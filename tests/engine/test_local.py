"""The engine as a whole, in its own thread, over a toy model."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nbllm.core import Chunk, Constraint, EmbedRequest, GenerateRequest, Message, SamplingParams, ScoreRequest
from nbllm.engine.interface import aiter_chunks, iter_chunks
from nbllm.engine.local import LocalEngine
from nbllm.errors import (
    ConstraintError,
    ContextOverflowError,
    EngineClosedError,
    EngineDeadError,
    InvalidRequestError,
    ParameterError,
)
from nbllm.testing import EOS, IM_END, ScriptedEngine, ToyBackend, toy_engine
from tests.forked import succeeds_in_child

_NO_END = {IM_END: -100.0, EOS: -100.0}


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    made = toy_engine(context_length=128)
    yield made
    made.close()


def _request(text: str = "hello", **sampling: Any) -> GenerateRequest:
    return GenerateRequest(text=text, sampling=SamplingParams(**{"temperature": 0, "max_tokens": 8, **sampling}))


def _text(engine: LocalEngine, request: GenerateRequest) -> str:
    return "".join(chunk.text for chunk in iter_chunks(engine, request))


def test_engine_answers_from_its_own_thread(engine: LocalEngine) -> None:
    threads: list[int] = []
    done = threading.Event()

    def on_chunk(chunk: Chunk) -> None:
        threads.append(threading.get_ident())
        if chunk.finish_reason:
            done.set()

    ticket = engine.submit(_request(), on_chunk)
    assert done.wait(20)
    assert set(threads) != {threading.get_ident()}
    ticket.cancel()


def test_eight_threads_get_the_answers_they_would_get_alone(engine: LocalEngine) -> None:
    wanted = [_text(engine, _request(f"thread {number}")) for number in range(8)]
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = _text(engine, _request(f"thread {number}"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [found[number] for number in range(8)] == wanted


def test_iterator_that_is_left_early_cancels(engine: LocalEngine) -> None:
    chunks = iter_chunks(engine, _request(max_tokens=None, logit_bias=_NO_END))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert _text(engine, _request()) == _text(engine, _request())
    assert engine.stats().num_running == 0


def test_async_iterator_gives_the_same_chunks(engine: LocalEngine) -> None:
    import asyncio

    async def collect() -> str:
        return "".join([chunk.text async for chunk in aiter_chunks(engine, _request())])

    assert asyncio.run(collect()) == _text(engine, _request())


def test_reproducible_text_is_the_same_in_any_company(engine: LocalEngine) -> None:
    request = GenerateRequest(
        text="p" * 50, reproducible=True, sampling=SamplingParams(temperature=1, seed=3, max_tokens=9)
    )
    assert len({_text(engine, request) for _ in range(3)}) == 1


def test_stats_count_what_was_done(engine: LocalEngine) -> None:
    _text(engine, _request(logit_bias=_NO_END))
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.completion_tokens, stats.num_waiting) == (6, 8, 0)
    assert stats.num_steps >= 8


def test_info_says_what_was_chosen(engine: LocalEngine) -> None:
    info = engine.info
    assert (info.context_length, info.max_sequences, info.model.loaded) == (128, 4, True)
    assert info.defaults.temperature is not None


def test_models_recommendation_is_the_default() -> None:
    engine = toy_engine(recommended=SamplingParams(temperature=0.3))
    assert engine.info.defaults.temperature == 0.3
    engine.close()


def test_text_goes_to_tokens_and_back(engine: LocalEngine) -> None:
    assert engine.detokenize(engine.tokenize("grüß")) == "grüß"
    assert engine.tokenize("<|im_end|>", parse_special=True) == [IM_END]
    with pytest.raises(ParameterError, match="tokens"):
        engine.detokenize([999])


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        pytest.param(GenerateRequest(text="x" * 127), ContextOverflowError, id="no room for an answer"),
        pytest.param(EmbedRequest(texts=("x" * 128,)), ContextOverflowError, id="text to embed is too long"),
        pytest.param(ScoreRequest(prompt="x" * 100, continuation="y" * 28), ContextOverflowError, id="score too long"),
        pytest.param(ScoreRequest(prompt="x", continuation=""), InvalidRequestError, id="nothing to score"),
        pytest.param(GenerateRequest(tokens=()), InvalidRequestError, id="no tokens"),
        pytest.param(GenerateRequest(text="\ud800"), InvalidRequestError, id="lone surrogate"),
        pytest.param(GenerateRequest(tokens=(5, 700)), ParameterError, id="token out of range"),
        pytest.param(_request(logit_bias={700: 1}), ParameterError, id="bias out of range"),
        pytest.param(
            GenerateRequest(text="x", constraint=Constraint("regex", "(")),
            ConstraintError,
            id="broken regular expression",
        ),
    ],
)
def test_bad_request_is_refused_at_once_and_harms_nothing(engine: LocalEngine, request_: Any, error: type) -> None:
    with pytest.raises(error) as refusal:
        engine.submit(request_, lambda chunk: None)
    assert "\n" not in str(refusal.value)
    assert engine.stats().num_waiting == 0
    assert _text(engine, _request()) == _text(engine, _request())


def test_prompt_that_fills_the_context_can_be_evaluated(engine: LocalEngine) -> None:
    chunks = list(iter_chunks(engine, _request("x" * 127, max_tokens=0)))
    assert chunks[-1].finish_reason == "length"


def test_close_is_twice_harmless_and_then_refuses() -> None:
    engine = toy_engine()
    engine.close()
    engine.close()
    with pytest.raises(EngineClosedError, match="load it again"):
        engine.submit(_request(), lambda chunk: None)
    with pytest.raises(EngineClosedError):
        engine.tokenize("x")


def test_close_ends_what_runs() -> None:
    engine = toy_engine()
    ends: list[Chunk] = []
    started, ended = threading.Event(), threading.Event()

    def on_chunk(chunk: Chunk) -> None:
        started.set()
        if chunk.finish_reason:
            ends.append(chunk)
            ended.set()

    engine.submit(_request(max_tokens=400, logit_bias=_NO_END), on_chunk)
    assert started.wait(20)
    engine.close()
    assert ended.wait(20)
    assert ends[0].finish_reason in ("error", "length")


def test_engine_that_failed_says_so_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    engine = toy_engine(ToyBackend(fail_after=1))
    with caplog.at_level(logging.CRITICAL, "nbllm.engine"):
        chunks = list(iter_chunks(engine, _request()))
    assert isinstance(chunks[-1].error, EngineDeadError)
    with pytest.raises(EngineDeadError):
        engine.submit(_request(), lambda chunk: None)
    engine.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child_is_told_that_the_engine_is_not_its_own(engine: LocalEngine) -> None:
    def use() -> None:
        with pytest.raises(EngineClosedError, match="forked"):
            engine.submit(_request(), lambda chunk: None)
        engine.close()

    assert succeeds_in_child(use)
    assert _text(engine, _request())


# ---- the scripted engine, which other rooms' tests stand on


def _chat(n: int = 1) -> GenerateRequest:
    return GenerateRequest(messages=(Message("user", "hi"),), sampling=SamplingParams(n=n))


def test_script_is_said_and_requests_are_kept() -> None:
    engine = ScriptedEngine()
    engine.enqueue(["one ", "two"])
    chunks = list(iter_chunks(engine, _chat()))
    assert "".join(chunk.text for chunk in chunks) == "one two"
    assert chunks[-1].finish_reason == "stop"
    assert engine.requests == [_chat()]


def test_script_gives_each_choice_its_answer() -> None:
    engine = ScriptedEngine()
    engine.enqueue("first")
    engine.enqueue("second")
    assert [(chunk.index, chunk.text) for chunk in iter_chunks(engine, _chat(2)) if chunk.text] == [
        (0, "first"),
        (1, "second"),
    ]


def test_script_raises_or_ends_with_an_error() -> None:
    engine = ScriptedEngine()
    engine.enqueue(InvalidRequestError("no"))
    engine.enqueue(["half", EngineDeadError("gone")])
    with pytest.raises(InvalidRequestError, match="no"):
        list(iter_chunks(engine, _chat()))
    chunks = list(iter_chunks(engine, _chat()))
    assert (chunks[-1].finish_reason, str(chunks[-1].error)) == ("error", "gone")


def test_script_can_hang_until_it_is_cancelled() -> None:
    engine = ScriptedEngine()
    engine.enqueue("half", until_cancelled=True)
    chunks = iter_chunks(engine, _chat())
    assert next(chunks).text == "half"
    assert not engine.tickets[0].is_done
    engine.tickets[0].cancel()
    assert next(chunks).finish_reason == "interrupted"


@pytest.mark.parametrize(
    ("trained_length", "advice"),
    [
        (0, "shorten the prompt, or load the model with context_length=1536"),
        (4096, "shorten the prompt, or load the model with context_length=1536"),
        (1200, "shorten the prompt, or load the model with context_length=1200"),
        (1000, "shorten the prompt (the model was trained for 1,000)"),
        (512, "shorten the prompt (the model was trained for 512)"),
    ],
)
def test_overflow_advises_no_context_beyond_what_the_model_knows(trained_length: int, advice: str) -> None:
    assert str(ContextOverflowError(1000, 512, trained_length=trained_length)).endswith(advice)


def test_overflow_knows_what_the_model_was_trained_for(engine: LocalEngine) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        engine.submit(GenerateRequest(text="x" * 200), lambda chunk: None)
    assert caught.value.trained_length == 2**20
