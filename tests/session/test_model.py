"""The Python API over the real model."""

from __future__ import annotations

import _thread
import asyncio
import functools
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nbllm
from nbllm.core import Chunk, GenerateRequest, Message
from nbllm.errors import EngineClosedError, InvalidRequestError
from nbllm.session.loading import load, loaded_models
from nbllm.session.model import Model
from nbllm.session.response import Response
from tests.forked import succeeds_in_child
from tests.loaded import CONTEXT

pytestmark = pytest.mark.model
_GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8}


def _ends(model: Model) -> dict[int, float]:
    """A bias that keeps answers from ending by themselves."""
    tokens = [
        token for text in ("<|im_end|>", "<|endoftext|>") for token in model.engine.tokenize(text, parse_special=True)
    ]
    return dict.fromkeys(tokens, -100.0)


# ---- sampling


def test_choices_have_seeds_of_their_own_and_can_be_repeated(smollm2: Model) -> None:
    three = smollm2.chat("Name an animal.", n=3, seed=11, temperature=1.5, max_tokens=6)
    assert [choice.seed for choice in three.choices] == [11, 12, 13]
    assert len({choice.text for choice in three.choices}) > 1
    assert three.text == three.choices[0].text


def test_stop_text_is_left_out(smollm2: Model) -> None:
    whole = smollm2.complete("One, two, three, four,", temperature=0, max_tokens=12).text
    cut = smollm2.complete("One, two, three, four,", temperature=0, max_tokens=12, stop=whole[6:9])
    assert (cut.text, cut.finish_reason) == (whole[: whole.index(whole[6:9])], "stop")


def test_no_tokens_evaluate_the_prompt_only(smollm2: Model) -> None:
    response = smollm2.chat("Hello", max_tokens=0)
    assert (response.text, response.finish_reason, response.usage.completion_tokens) == ("", "length", 0)
    assert response.usage.prompt_tokens > 5


def test_logprobs_are_sorted_and_led_by_the_greedy_token(smollm2: Model) -> None:
    response = smollm2.chat("Name a colour.", **_GREEDY, logprobs=True, top_logprobs=5)
    assert len(response.logprobs) == len(response.tokens)
    for token, entry in zip(response.tokens, response.logprobs, strict=True):
        values = [value for _, _, value in entry.top]
        assert entry.token == token == entry.top[0][0]
        assert values == sorted(values, reverse=True)
        assert entry.logprob == values[0] <= 0
        assert sum(np.exp(values)) <= 1 + 1e-6


def test_bias_decides(smollm2: Model) -> None:
    (token,) = smollm2.engine.tokenize(" yes")
    assert smollm2.complete("x", max_tokens=3, logit_bias={token: 100}).text == " yes yes yes"


# ---- constraints

_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0, 1])
def test_answer_fits_the_schema(smollm2: Model, temperature: float) -> None:
    import jsonschema

    response = smollm2.chat("Describe Ada.", response_format=_SCHEMA, temperature=temperature, seed=4, max_tokens=80)
    assert response.finish_reason == "stop"
    jsonschema.validate(response.parsed, _SCHEMA)
    assert json.loads(response.text) == response.parsed


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        pytest.param({"regex": "(cat|dog)s?"}, {"cat", "cats", "dog", "dogs"}, id="regex"),
        pytest.param({"choice": ["yes", "no"]}, {"yes", "no"}, id="choice"),
        pytest.param({"grammar": 'start: "left" | "right"'}, {"left", "right"}, id="Lark"),
        pytest.param({"grammar": 'root ::= "up" | "down"'}, {"up", "down"}, id="GBNF"),
    ],
)
def test_answer_has_the_shape(smollm2: Model, options: dict[str, Any], allowed: set[str]) -> None:
    for penalty in (0.0, 0.5):
        response = smollm2.chat("Which one?", temperature=0, max_tokens=12, presence_penalty=penalty, **options)
        assert response.text in allowed
        assert response.finish_reason == "stop"


def test_forced_tokens_take_no_steps(smollm2: Model) -> None:
    before = smollm2.stats.num_steps
    text = "the only answer that there can be, whatever the model would rather say"
    response = smollm2.chat("Well?", temperature=0, max_tokens=60, choice=[text])
    assert response.text == text
    assert smollm2.stats.num_steps - before < response.usage.completion_tokens


# ---- numbers


def test_embeddings_are_unit_vectors_and_do_not_depend_on_company(smollm2: Model) -> None:
    texts = ["the cat sat", "a feline was sitting", "the price of oil fell"]
    stream = smollm2.stream("Count to ten.", temperature=0, max_tokens=12)
    next(stream)
    together = smollm2.embed(texts)
    for _ in stream:
        pass
    assert together.shape == (3, 576)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, row in zip(texts, together, strict=True):
        assert float(smollm2.embed(text)[0] @ row) == pytest.approx(1, abs=1e-3)
    assert together[0] @ together[1] > together[0] @ together[2]


def test_embed_of_nothing_has_no_rows(smollm2: Model) -> None:
    assert smollm2.embed([]).shape == (0, 576)


def test_score_is_the_sum_of_the_logprobs_of_forced_tokens(smollm2: Model) -> None:
    """Each token of the continuation is forced by a bias, and reports the model's own logprob."""
    prompt, continuation = "The capital of France is", " Paris."
    score = smollm2.score(prompt, continuation)
    tokens, total = smollm2.engine.tokenize(prompt), 0.0
    for token in smollm2.engine.tokenize(continuation):
        response = smollm2.complete(tokens, max_tokens=1, logprobs=True, logit_bias={token: 100}, cache_prompt=False)
        assert response.tokens == (token,)
        total += response.logprobs[0].logprob
        tokens.append(token)
    assert score.logprob == pytest.approx(total, abs=5e-2)
    assert score.logprob > smollm2.score(prompt, " purple").logprob


def test_count_is_what_a_chat_uses(smollm2: Model) -> None:
    messages = [{"role": "user", "content": "How long is this?"}]
    assert smollm2.count_tokens(messages) == smollm2.chat(messages, max_tokens=0).usage.prompt_tokens
    assert smollm2.count_tokens("How long is this?") < smollm2.count_tokens("How long is this?", chat=True)


# ---- ends


def test_leaving_a_stream_frees_the_engine(smollm2: Model) -> None:
    for chunk in smollm2.stream("Tell me a long story.", temperature=0, logit_bias=_ends(smollm2)):
        assert chunk.finish_reason is None
        break
    again = smollm2.chat("Name a colour.", **_GREEDY)
    assert smollm2.stats.num_running == 0
    assert again.text == smollm2.chat("Name a colour.", **_GREEDY).text


def test_cancel_in_prefill_ends_it(smollm2: Model) -> None:
    got: list[Chunk] = []
    done = threading.Event()

    def on_chunk(chunk: Chunk) -> None:
        got.append(chunk)
        done.set()

    ticket = smollm2.engine.submit(GenerateRequest(text="word " * 800), on_chunk)
    ticket.cancel()
    assert done.wait(20)
    assert (got[0].finish_reason, got[0].tokens) == ("interrupted", ())


def test_timeout_keeps_the_text(smollm2: Model) -> None:
    response = smollm2.chat("Tell me a long story.", timeout=1.0, temperature=0, logit_bias=_ends(smollm2))
    assert response.finish_reason == "timeout"
    assert response.text


def test_answer_runs_to_the_end_of_the_context(smollm2: Model) -> None:
    with load("smollm2", context_length=256, max_sequences=1, kv_tokens=256) as small:
        response = small.chat("word " * 190, temperature=0, logit_bias=_ends(smollm2))
    assert response.finish_reason == "length"
    assert response.usage.total_tokens == 256


class _Interrupter:
    """A progress callback or chunk reader that interrupts the main thread after so many calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if not self.left:
            _thread.interrupt_main()


def _interrupt_after_first_token(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the main thread from the engine's, as a kernel does, once the second chunk has left."""
    submit, interrupter = model.engine.submit, _Interrupter(2)

    def watched(request: Any, on_chunk: Any) -> Any:
        def both(chunk: Chunk) -> None:
            on_chunk(chunk)
            interrupter()

        return submit(request, both)

    monkeypatch.setattr(model.engine, "submit", watched)


def test_interrupt_keeps_the_partial_answer(smollm2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _interrupt_after_first_token(smollm2, patch)
        with pytest.raises(KeyboardInterrupt):
            smollm2.chat("Tell me a long story.", temperature=0, logit_bias=_ends(smollm2))
    assert isinstance(smollm2.last, Response)
    assert smollm2.last.finish_reason == "interrupted"
    assert smollm2.last.text
    assert smollm2.chat("Hello", **_GREEDY).finish_reason


class _AlarmError(Exception):
    """What a handler raises that is no KeyboardInterrupt."""


@pytest.fixture
def alarm() -> Iterator[Callable[..., object]]:
    """Sets a timer whose handler raises in the main thread, wherever it is."""

    def ring(*_: object) -> None:
        raise _AlarmError

    before = signal.signal(signal.SIGALRM, ring)
    yield functools.partial(signal.setitimer, signal.ITIMER_REAL)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _interrupted(act: Callable[[], object], alarm: Callable[..., object], seconds: float) -> None:
    """Rings once more after a second: Python drops what a handler raises while a finalizer runs."""
    alarm(seconds, 1.0)
    try:
        act()
    finally:
        alarm(0)


_ENDLESS: dict[str, Callable[[Model], object]] = {
    "chat": lambda model: model.chat("Tell me a story." * 9, temperature=0, logit_bias=_ends(model)),
    "stream": lambda model: list(model.stream("Tell me a story." * 9, temperature=0, logit_bias=_ends(model))),
    "chat_many": lambda model: model.chat_many(["a", "b", "c"] * 9, temperature=0, logit_bias=_ends(model)),
    "embed": lambda model: model.embed(["word " * 500] * 40),
    "score": lambda model: [model.score("word " * 500, f"{number}") for number in range(99)],
    "constrained": lambda model: model.chat("a", regex="[a-z]{900}", temperature=0),
}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that signal here")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python drops one raised in a finalizer
@pytest.mark.parametrize("act", _ENDLESS.values(), ids=_ENDLESS)
@pytest.mark.timeout(120, method="thread")  # the other method's own alarm is the one that rings here
def test_alarm_at_any_moment_ends_the_request_and_the_next_is_right(
    smollm2: Model, alarm: Callable[..., object], act: Callable[[Model], object]
) -> None:
    right = smollm2.chat("What is the capital of France?", **_GREEDY).text
    smollm2.embed("a")  # what is imported at the first use is imported before the alarms
    smollm2.chat("a", regex="[a-z]", max_tokens=1)
    chance = random.Random(7)
    for least in (0.001, 0.005, 0.02, 0.2):
        with pytest.raises(_AlarmError):
            _interrupted(lambda: act(smollm2), alarm, least * (1 + chance.random()))
        again = smollm2.chat("What is the capital of France?", **_GREEDY, timeout=30)
        assert (again.text, again.finish_reason) == (right, "length")
    assert (smollm2.stats.num_running, smollm2.stats.num_waiting) == (0, 0), "a request that nobody can cancel"


def test_interrupt_of_many_keeps_what_is_there(smollm2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _interrupt_after_first_token(smollm2, patch)
        with pytest.raises(KeyboardInterrupt):
            smollm2.chat_many(["Tell me a story.", "Sing a song."], temperature=0, logit_bias=_ends(smollm2))
    assert isinstance(smollm2.last, list)
    assert len(smollm2.last) == 2
    assert any(response.text for response in smollm2.last)
    assert {response.finish_reason for response in smollm2.last} == {"interrupted"}
    assert smollm2.chat("Hello", **_GREEDY).finish_reason


# ---- many


def test_many_are_answered_in_order_with_progress(smollm2: Model) -> None:
    seen: list[tuple[int, int]] = []
    prompts = ["Say one.", "Say two.", "Say three."]
    smollm2.chat_many(prompts, **_GREEDY, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    alone = [smollm2.chat(prompt, **_GREEDY, reproducible=True).text for prompt in prompts]
    together = smollm2.chat_many(prompts, **_GREEDY, reproducible=True)
    assert [response.text for response in together] == alone


def test_many_keep_their_errors_when_asked_to(smollm2: Model) -> None:
    first, second = smollm2.chat_many(["", "Say two."], on_error="keep", **_GREEDY)
    assert isinstance(first.error, InvalidRequestError)
    assert first.finish_reason == "error"
    assert second.text


def test_eight_threads_share_a_model(smollm2: Model) -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = smollm2.chat(f"Say {number}.", **_GREEDY).text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == list(range(8))
    assert all(found.values())


def test_async_chat_leaves_the_loop_free(smollm2: Model) -> None:
    async def both() -> tuple[Response, Response]:
        return await asyncio.gather(smollm2.achat("Say one.", **_GREEDY), smollm2.achat("Say two.", **_GREEDY))

    one, two = asyncio.run(both())
    assert one.text
    assert two.text


def test_cancelled_task_cancels_its_request(smollm2: Model) -> None:
    async def cancel() -> None:
        task = asyncio.create_task(smollm2.achat("Tell me a long story.", temperature=0, logit_bias=_ends(smollm2)))
        while not smollm2.stats.num_running:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while smollm2.stats.num_running:  # the test's own timeout ends this when the request is not cancelled
            await asyncio.sleep(0.01)

    asyncio.run(cancel())


def test_reproducible_text_is_the_same_alone_in_company_cached_and_shuffled(smollm2: Model) -> None:
    prompts = [f"Give a fact about the number {number}." for number in range(9)]
    options: dict[str, Any] = {"reproducible": True, "temperature": 0.8, "seed": 3, "max_tokens": 5}
    together = [response.text for response in smollm2.chat_many(prompts, **options)]
    shuffled = smollm2.chat_many(prompts[::-1], **options)
    assert [response.text for response in shuffled[::-1]] == together
    for index in (0, 7):
        alone = smollm2.chat(prompts[index], **options, cache_prompt=False)
        assert alone.text == together[index]
        assert smollm2.chat(prompts[index], **options).text == together[index]


# ---- the process


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child_is_told_at_once(smollm2: Model) -> None:
    def use() -> None:
        for act in (lambda: smollm2.chat("hi"), lambda: smollm2.embed("hi"), lambda: load("smollm2")):
            with pytest.raises(EngineClosedError):
                act()

    assert succeeds_in_child(use)
    assert smollm2.chat("Hello", **_GREEDY).text


def test_second_load_is_the_same_model(smollm2: Model) -> None:
    options: dict[str, Any] = {"context_length": CONTEXT, "max_sequences": 4, "kv_tokens": 4096}
    assert nbllm.load("smollm2", **options) is smollm2
    assert nbllm.load(smollm2.info.model.path, **options, gpu_layers=-1) is smollm2
    assert smollm2 in loaded_models()


def test_closed_model_refuses_and_is_loaded_anew(smollm2: Model) -> None:
    options: dict[str, Any] = {"context_length": 256, "max_sequences": 1, "kv_tokens": 256}
    with load("smollm2", **options) as small:
        assert small is not smollm2
        assert small.chat("Hi", max_tokens=1).usage.prompt_tokens
    small.close()
    with pytest.raises(EngineClosedError, match="load it again"):
        small.chat("Hi")
    assert small not in loaded_models()
    with load("smollm2", **options) as again:
        assert again is not small
        assert again.chat("Hi", max_tokens=1).usage.prompt_tokens


def test_history_with_generated_ids_is_reused(smollm2: Model) -> None:
    first = smollm2.chat("Name three fruits.", temperature=0.8, seed=2, max_tokens=30)
    turns = [Message("user", "Name three fruits."), first.message, Message("user", "And vegetables?")]
    second = smollm2.chat(turns, **_GREEDY)
    wanted = first.usage.prompt_tokens + first.usage.completion_tokens - 1
    assert second.usage.cached_tokens >= wanted - 1
    fresh = smollm2.chat(turns, **_GREEDY, cache_prompt=False)
    assert second.text == fresh.text
