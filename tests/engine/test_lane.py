"""The loop, stepped by hand over a toy model: whatever the company, everybody gets the answer it gets when alone."""

from __future__ import annotations

import functools
import logging
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.core import (
    ChoiceRequest,
    Chunk,
    Constraint,
    EmbedRequest,
    GenerateRequest,
    Message,
    Priority,
    Request,
    SamplingParams,
    ScoreRequest,
    Usage,
)
from nbllm.engine.pace import TARGET_S, UNWATCHED_S, Pace
from nbllm.errors import ConstraintError, EngineClosedError, EngineDeadError, EngineError
from nbllm.testing import ToyBackend
from tests.engine.bruteforce import evaluated_alone
from tests.engine.hand import Asked, Hand

_CONTEXT = 96
_INSTRUCTION = "Say what you see, in a word: "
_PROMPTS = ("a", "b", _INSTRUCTION + "a cat", _INSTRUCTION + "a cart", _INSTRUCTION * 2, "x" * 70)
_REGEX = Constraint("regex", "(forced|farther) [0-9]{2}(tail)?")


def _request(text: str = "hello", *, priority: Priority = "interactive", **sampling: Any) -> GenerateRequest:
    options = {"temperature": 0, "max_tokens": 12, "seed": 5, **sampling}
    return GenerateRequest(text=text, priority=priority, sampling=SamplingParams(**options))


@functools.lru_cache(maxsize=4096)
def _alone(text: str, key: tuple[tuple[str, Any], ...], constraint: Constraint | None, fixed: bool) -> Asked:
    request = replace(_request(text, **dict(key)), constraint=constraint, reproducible=fixed)
    return Hand(context_length=_CONTEXT).answer(request)


_samplings = st.fixed_dictionaries(
    {"max_tokens": st.integers(0, 20), "seed": st.integers(0, 3), "temperature": st.sampled_from([0, 1])},
    optional={
        "n": st.integers(1, 3),
        "frequency_penalty": st.just(1.0),
        "repeat_penalty": st.just(1.3),
        "stop": st.just(("e",)),
    },
)
_priorities: st.SearchStrategy[Priority] = st.sampled_from(["interactive", "batch"])
_generations = st.builds(
    lambda text, priority, sampling, constraint, fixed, timeout, cached: replace(
        _request(text, priority=priority, **sampling),
        constraint=constraint,
        reproducible=fixed,
        timeout_s=timeout,
        cache_prompt=cached,
    ),
    st.sampled_from(_PROMPTS),
    _priorities,
    _samplings,
    st.sampled_from([None, None, _REGEX]),
    st.sampled_from([False, False, True]),
    st.sampled_from([None, None, 0.05, 0.2]),
    st.sampled_from([True, True, False]),
)
_embeddings = st.builds(
    lambda texts, priority: EmbedRequest(texts=tuple(texts), priority=priority),
    st.lists(st.sampled_from(_PROMPTS), min_size=1, max_size=3),
    _priorities,
)
_scores = st.builds(
    lambda prompt, priority: ScoreRequest(prompt=prompt, continuation=" because", priority=priority),
    st.sampled_from(_PROMPTS),
    _priorities,
)
_choices = st.builds(
    lambda text, choices, fixed, cached, priority, timeout: ChoiceRequest(
        messages=(Message("user", text),),
        choices=tuple(choices),
        reproducible=fixed,
        cache_prompt=cached,
        priority=priority,
        timeout_s=timeout,
    ),
    st.sampled_from(["a", _INSTRUCTION[:20]]),
    st.lists(st.sampled_from(["no", "nothing", "n", "yes", "yet", "a longer answer"]), min_size=2, unique=True),
    st.sampled_from([False, False, True]),
    st.sampled_from([True, True, False]),
    _priorities,
    st.sampled_from([None, None, 0.05]),
)
_acts = st.lists(
    st.one_of(
        _generations,
        _generations,
        _embeddings,
        _scores,
        _choices,
        st.integers(1, 6),
        st.integers(0, 20).map(lambda n: ("cancel", n)),
    ),
    min_size=1,
    max_size=14,
)
_engines = st.fixed_dictionaries(
    {
        "kv_tokens": st.sampled_from([_CONTEXT, _CONTEXT + 40, _CONTEXT * 2, _CONTEXT * 5]),
        "max_sequences": st.integers(1, 4),
        "store_bytes": st.sampled_from([0, 600, 2**20]),
        "memory": st.sampled_from([{}, {}, {"window": 8}, {"recurrent": True}]),
        "max_batch": st.sampled_from([40, 512]),
    }
)


@given(options=_engines, acts=_acts)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_everybody_gets_the_answer_it_gets_alone(options: dict[str, Any], acts: list[Any]) -> None:
    backend = ToyBackend(max_batch=options["max_batch"], **options["memory"])
    hand = Hand(
        backend,
        context_length=_CONTEXT,
        kv_tokens=options["kv_tokens"],
        max_sequences=options["max_sequences"],
        store_bytes=options["store_bytes"],
    )
    asked: list[Asked] = []
    for act in acts:
        if isinstance(act, int):
            for _ in range(act):
                hand.step()
        elif isinstance(act, tuple):
            _cancel(hand, asked, act[1])
        else:
            asked.append(hand.ask(act))
    hand.finish(*asked)
    hand.step()
    assert not hand.has_work
    assert all(context.cells == 0 for context in backend.contexts)
    for one in asked:
        _check_answer(one)


def _cancel(hand: Hand, asked: list[Asked], pick: int) -> None:
    if not asked:
        return
    one = asked[pick % len(asked)]
    one.ticket.cancel()
    hand.step()
    assert one.is_done, "a cancel took more than a step"


def _check_answer(one: Asked) -> None:
    request = one.request
    if isinstance(request, GenerateRequest):
        for index in range(request.sampling.n):
            _check_text(one, request, index)
    elif isinstance(request, EmbedRequest):
        for index, text in enumerate(request.texts):
            if one.last(index).finish_reason == "stop":
                np.testing.assert_allclose(one.last(index).embedding, _alone_vector(text), atol=1e-6)
    elif isinstance(request, ChoiceRequest):
        _check_choices(one, request)
    elif one.last().finish_reason == "stop":
        assert one.last().token_logprobs == _alone_score(request)


def _check_choices(one: Asked, request: ChoiceRequest) -> None:
    assert all(len(chunks) == 1 for chunks in one.chunks.values())
    if one.last().finish_reason == "stop":
        found = [one.last(index).token_logprobs for index in range(len(request.choices))]
        assert found == [evaluated_alone(request, choice) for choice in request.choices]


@functools.lru_cache(maxsize=64)
def _alone_vector(text: str) -> Any:
    return Hand(context_length=_CONTEXT).answer(EmbedRequest(texts=(text,))).last().embedding


@functools.lru_cache(maxsize=64)
def _alone_score(request: Request) -> Any:
    return Hand(context_length=_CONTEXT).answer(request).last().token_logprobs


def _check_text(one: Asked, request: GenerateRequest, index: int) -> None:
    params = request.sampling
    names = ("max_tokens", "temperature", "frequency_penalty", "repeat_penalty", "stop")
    key = {name: getattr(params, name) for name in names if getattr(params, name)} | {"max_tokens": params.max_tokens}
    key["seed"] = (params.seed or 0) + index
    wanted = _alone(request.text or "", tuple(sorted(key.items())), request.constraint, request.reproducible)
    reason = one.last(index).finish_reason
    if reason in ("interrupted", "timeout"):
        assert one.tokens(index) == wanted.tokens()[: len(one.tokens(index))]
        return
    assert (one.tokens(index), one.text(index), reason) == (wanted.tokens(), wanted.text(), wanted.last().finish_reason)
    usage = one.last(index).usage
    assert usage is not None
    assert usage.completion_tokens == len(one.tokens(index))
    assert 0 <= usage.cached_tokens < usage.prompt_tokens


# ---- prefixes


def test_common_prefix_is_evaluated_once_when_many_arrive_together() -> None:
    hand = Hand(max_sequences=8)
    instruction = "Classify the following sentence as one of two kinds. " * 3
    asked = [hand.ask(_request(f"{instruction}{number}", priority="batch", max_tokens=1)) for number in range(8)]
    hand.finish(*asked)
    usages = [one.last().usage or Usage() for one in asked]
    shared = len(instruction) + 1
    assert hand.context.num_evaluated == shared + sum(usage.prompt_tokens - shared for usage in usages)
    assert sum(usage.cached_tokens for usage in usages) == 7 * shared


def test_choices_share_one_evaluated_prompt() -> None:
    hand = Hand(max_sequences=4)
    one = hand.answer(_request("y" * 100, n=4, temperature=1, max_tokens=1))
    assert hand.context.num_evaluated == 101 + 3
    assert [one.chunks[index][-1].usage.cached_tokens for index in range(4)] == [0, 100, 100, 100]  # type: ignore[union-attr]


def test_next_turn_reuses_the_turn_before() -> None:
    hand = Hand()
    first = hand.answer(_request("z" * 50, max_tokens=10))
    before = hand.context.num_evaluated
    again = GenerateRequest(tokens=(256, *b"z" * 50, *first.tokens(), *b"more"), sampling=_request().sampling)
    second = hand.ask(again)
    hand.step()
    assert hand.context.num_evaluated - before == 5, "the last generated token and the new ones"
    hand.finish(second)
    assert second.tokens() == Hand().answer(again).tokens()


@pytest.mark.parametrize("memory", [{}, {"window": 8}, {"recurrent": True}], ids=["plain", "window", "recurrent"])
def test_conversation_has_the_same_text_on_any_memory(memory: dict[str, Any]) -> None:
    hand = Hand(ToyBackend(**memory))
    tokens: tuple[int, ...] = (256, *b"A first question, long enough to be stored.")
    for question in (b"And?", b"A second one.", b"Another."):
        request = GenerateRequest(tokens=(*tokens, *question), sampling=SamplingParams(temperature=0, max_tokens=8))
        one = hand.answer(request)
        assert one.tokens() == Hand().answer(request).tokens()
        tokens = (*request.tokens, *one.tokens()) if request.tokens else ()


def test_cache_that_is_off_is_neither_read_nor_written() -> None:
    hand = Hand()
    request = replace(_request("w" * 60), cache_prompt=False)
    for _ in range(2):
        usage = hand.answer(request).last().usage
        assert usage is not None
        assert usage.cached_tokens == 0
    assert hand.engine.stats().stored_bytes == 0


# ---- who goes first


def test_steps_are_larger_while_only_a_tables_rows_run(monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[float] = []

    def budget(self: Pace, num_decoding: int, target_s: float) -> int:
        targets.append(target_s)
        return 8

    monkeypatch.setattr(Pace, "budget", budget)
    hand = Hand()
    hand.ask(_request("a row", priority="batch", max_tokens=30))
    hand.step()
    hand.ask(_request("a person", max_tokens=3))
    hand.step()
    assert targets == [UNWATCHED_S, TARGET_S]


def test_person_is_admitted_at_once_when_a_table_fills_its_slots() -> None:
    hand = Hand(max_sequences=2)
    table = [hand.ask(_request(f"row {number}", priority="batch", max_tokens=60)) for number in range(6)]
    for _ in range(5):
        hand.step()
    people = [hand.ask(_request(f"person {number}", max_tokens=2)) for number in range(3)]
    hand.step()
    hand.step()
    assert all(person.chunks[0] for person in people), "the first token comes with the prefill"
    hand.finish(*table, *people)
    for one in table:
        assert one.tokens() == Hand().answer(one.request).tokens()


def test_person_gets_the_cells_of_a_table() -> None:
    hand = Hand(context_length=128, kv_tokens=160, max_sequences=2)
    row = hand.ask(_request("r" * 100, priority="batch", max_tokens=20))
    for _ in range(6):
        hand.step()
    person = hand.ask(_request("p" * 100, max_tokens=20))
    hand.finish(person)
    assert not row.is_done
    hand.finish(row)
    assert row.tokens() == Hand().answer(row.request).tokens()
    assert person.tokens() == Hand().answer(person.request).tokens()


def test_preempted_sequence_that_lost_its_state_goes_on_where_it_was() -> None:
    """The state cannot be put back, so all of it is evaluated again, in slices that end before its last token."""
    hand = Hand(ToyBackend(max_batch=40), context_length=256, max_sequences=1)
    row = hand.ask(_request("start", priority="batch", max_tokens=120, logit_bias={258: -100, 261: -100}))
    for _ in range(90):
        hand.step()
    hand.context.restore = lambda slot, state, length: False  # type: ignore[method-assign]
    people = [hand.ask(_request(f"person {number}", max_tokens=2)) for number in range(2)]
    hand.finish(row, *people)
    assert row.tokens() == Hand().answer(row.request).tokens()


def test_embedding_that_lost_its_state_counts_no_token_twice() -> None:
    hand = Hand(max_sequences=1)
    row = hand.ask(EmbedRequest(texts=("v" * 90,), priority="batch"))
    hand.step()
    hand.context.restore = lambda slot, state, length: False  # type: ignore[method-assign]
    people = [hand.ask(_request(f"person {number}", max_tokens=2)) for number in range(2)]
    hand.finish(row, *people)
    np.testing.assert_allclose(row.last().embedding, Hand().answer(row.request).last().embedding, atol=1e-6)


def test_score_that_lost_its_state_counts_no_token_twice() -> None:
    hand = Hand(max_sequences=1)
    row = hand.ask(ScoreRequest(prompt="p", continuation="c" * 90, priority="batch"))
    hand.step()
    hand.context.restore = lambda slot, state, length: False  # type: ignore[method-assign]
    people = [hand.ask(_request(f"person {number}", max_tokens=2)) for number in range(2)]
    hand.finish(row, *people)
    assert row.last().token_logprobs == Hand().answer(row.request).last().token_logprobs


# ---- ends


@pytest.mark.parametrize("steps", [0, 1, 2, 6], ids=["waiting", "in prefill", "later in prefill", "decoding"])
def test_cancel_ends_within_a_step_and_keeps_the_text(steps: int) -> None:
    hand = Hand()
    one = hand.ask(_request("q" * 70, max_tokens=100))
    for _ in range(steps):
        hand.step()
    said = one.tokens()
    one.ticket.cancel()
    hand.step()
    assert one.is_done
    assert one.ticket.is_done
    assert one.last().finish_reason == "interrupted"
    assert one.tokens()[: len(said)] == said
    assert not hand.has_work
    assert hand.answer(_request("q" * 70)).tokens() == Hand().answer(_request("q" * 70)).tokens()


def test_cancel_in_the_middle_of_a_step_stops_it() -> None:
    hand = Hand()
    one = hand.ask(_request("q" * 70))
    hand.context.during_decode = one.ticket.cancel
    hand.step()
    assert hand.context.num_steps == 0
    hand.context.during_decode = None
    hand.step()
    assert one.last().finish_reason == "interrupted"


def test_step_that_was_stopped_is_evaluated_again_for_the_others() -> None:
    hand = Hand()
    one, other = hand.ask(_request("q" * 70)), hand.ask(_request("o" * 20))
    for _ in range(3):
        hand.step()
    hand.context.during_decode = hand.lane.stop_step
    hand.step()
    hand.context.during_decode = None
    hand.finish(one, other)
    assert one.tokens() == Hand().answer(one.request).tokens()
    assert other.tokens() == Hand().answer(other.request).tokens()


def test_request_that_is_made_and_cancelled_while_another_ends_is_ended_too() -> None:
    hand = Hand()
    later: list[Asked] = []

    def ask_and_cancel(chunk: Chunk) -> None:
        if chunk.finish_reason:
            later.append(hand.ask(_request("second")))
            later[0].ticket.cancel()

    ticket = hand.engine.submit(_request("first", max_tokens=100), ask_and_cancel)
    hand.step()
    ticket.cancel()
    hand.step()
    hand.step()
    assert later[0].last().finish_reason == "interrupted"


def test_timeout_keeps_the_text_so_far() -> None:
    hand = Hand()
    one = hand.ask(replace(_request("t", max_tokens=200, logit_bias={258: -100, 261: -100}), timeout_s=0.3))
    hand.finish(one)
    assert one.last().finish_reason == "timeout"
    assert one.tokens()
    assert hand.now < 100.4


def test_timeout_counts_the_wait_for_a_slot() -> None:
    hand = Hand(max_sequences=1)
    rows = [hand.ask(_request(f"row {number}", priority="batch", max_tokens=100)) for number in range(2)]
    late = hand.ask(replace(_request("late", priority="batch"), timeout_s=0.05))
    hand.finish(late)
    assert (late.last().finish_reason, late.tokens()) == ("timeout", ())
    hand.finish(*rows)


def test_last_chunk_is_given_before_the_ticket_is_done() -> None:
    hand = Hand()
    seen: list[bool] = []
    ticket = hand.engine.submit(_request(max_tokens=1), lambda chunk: seen.append(ticket.is_done))
    while hand.has_work:
        hand.step()
    assert seen
    assert not any(seen)
    assert ticket.is_done


def test_exception_in_a_reader_ends_its_request_only(caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand()

    def broken(chunk: Chunk) -> None:
        raise ValueError("a reader's bug")

    with caplog.at_level(logging.CRITICAL, "nbllm.engine"):
        ticket = hand.engine.submit(_request("broken", max_tokens=100), broken)
        other = hand.ask(_request("other"))
        hand.finish(other)
    assert ticket.is_done
    assert other.tokens() == Hand().answer(other.request).tokens()


def test_constraint_without_a_way_on_ends_its_request_only() -> None:
    hand = Hand()
    stuck = hand.ask(replace(_request(logit_bias={ord("f"): -100}), constraint=_REGEX))
    other = hand.ask(_request("other"))
    hand.finish(stuck, other)
    assert stuck.last().finish_reason == "error"
    assert isinstance(stuck.last().error, ConstraintError)
    assert other.last().finish_reason != "error"


def test_close_ends_everything_with_an_error() -> None:
    hand = Hand(max_sequences=1)
    asked = [hand.ask(_request(f"{number}", priority="batch", max_tokens=100)) for number in range(3)]
    hand.step()
    hand.engine.close()
    assert all(isinstance(one.last().error, EngineClosedError) for one in asked)
    assert hand.backend.is_closed
    with pytest.raises(EngineClosedError):
        hand.ask(_request())


def test_death_of_a_lane_is_told_to_everybody(caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand(ToyBackend(fail_after=2))
    one = hand.ask(_request("w" * 200))
    with caplog.at_level(logging.CRITICAL, "nbllm.engine"):
        hand.lane.step(1, lambda: 1)
        hand.lane.step(1, lambda: 1)
        with pytest.raises(EngineError) as failure:
            hand.lane.step(1, lambda: 1)
        hand.lane.die(failure.value)
    assert isinstance(one.last().error, EngineDeadError)
    with pytest.raises(EngineDeadError, match="load the model again"):
        hand.ask(_request())


def test_samplers_are_freed_whatever_ends_a_request() -> None:
    hand = Hand(max_sequences=1)
    made: list[Any] = []
    make = hand.backend.make_sampler
    hand.backend.make_sampler = lambda *args: made.append(make(*args)) or made[-1]  # type: ignore[func-returns-value,method-assign]
    done, cancelled, waiting = (hand.ask(_request(name, priority="batch", max_tokens=4)) for name in "abc")
    cancelled.ticket.cancel()
    hand.finish(done)
    hand.engine.close()
    assert waiting.is_done
    assert len(made) == 3
    assert all(sampler.is_closed for sampler in made)


# ---- shapes


def test_reproducible_decode_always_has_the_same_width() -> None:
    hand = Hand()
    asked = [
        hand.ask(replace(_request(f"{number}" * 40, max_tokens=3 + number), reproducible=True)) for number in range(3)
    ]
    hand.step()
    context = hand.backend.contexts[1]
    sizes = set()
    while not all(one.is_done for one in asked):
        before = context.num_evaluated
        hand.step()
        sizes.add(context.num_evaluated - before)
    assert sizes <= {8, 32, 9, 41 - 32, 0}


def test_forced_tokens_are_evaluated_together() -> None:
    constraint = Constraint("choice", '["a choice that is long enough to be forced"]')
    hand = Hand()
    one = hand.answer(replace(_request("c", max_tokens=60), constraint=constraint))
    assert one.text() == "a choice that is long enough to be forced"
    assert one.last().finish_reason == "stop"
    assert hand.context.num_steps < 8


def test_many_constrained_sequences_do_not_overfill_a_batch() -> None:
    constraint = Constraint("choice", '["a choice that is long enough to be forced"]')
    hand = Hand(ToyBackend(max_batch=24), max_sequences=4)
    asked = [hand.ask(replace(_request(f"{number}", max_tokens=60), constraint=constraint)) for number in range(4)]
    hand.finish(*asked)
    assert {one.text() for one in asked} == {"a choice that is long enough to be forced"}


def test_fault_in_one_request_ends_it_alone(caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand()
    broken, well = hand.ask(_request("abc")), hand.ask(_request("xyz"))
    hand.step()
    job, _ = hand.lane._jobs[next(iter(hand.lane._jobs))]
    job.advance = _raise_zero_division  # type: ignore[method-assign,assignment]
    hand.finish(broken, well)
    assert isinstance(broken.last().error, EngineError)
    assert well.tokens() == Hand().answer(well.request).tokens()
    assert "a request failed" in caplog.text


def _raise_zero_division(*_: object) -> None:
    raise ZeroDivisionError("of a made-up kind")


def test_cancel_of_a_waiting_request_lets_the_step_of_others_be() -> None:
    hand = Hand(max_sequences=1)
    running = [hand.ask(_request(text)) for text in ("abc", "def")]
    hand.step()
    waiting = hand.ask(_request("xyz"))
    threads = threading.active_count()
    hand.context.during_decode = waiting.ticket.cancel
    hand.step()
    assert threading.active_count() == threads, "a timer that would stop the others' step"
    hand.context.during_decode = None
    hand.finish(*running, waiting)
    assert waiting.last().finish_reason == "interrupted"


def test_interrupt_of_a_submission_leaves_nothing_running() -> None:
    hand = Hand()
    wake = hand.lane._wake

    def interrupted() -> None:
        hand.lane._wake = wake
        raise KeyboardInterrupt

    hand.lane._wake = interrupted
    given: list[Chunk] = []
    with pytest.raises(KeyboardInterrupt):
        hand.engine.submit(_request("x" * 70, max_tokens=90), given.append)
    hand.step()
    assert [chunk.finish_reason for chunk in given] == ["interrupted"]
    assert not hand.has_work
    assert hand.answer(_request()).tokens() == Hand().answer(_request()).tokens()


def test_request_after_the_end_is_refused_before_its_prompt_is_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand()
    hand.lane.close()
    monkeypatch.setattr(ToyBackend, "tokenize", lambda *_, **__: pytest.fail("tokenized"))
    with pytest.raises(EngineClosedError):
        hand.ask(_request())
