"""Choices after one prompt: one evaluation of the prompt, branches that leave nothing behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.core import ChoiceRequest, GenerateRequest, Message, SamplingParams
from nbllm.engine.branches import LONGEST
from nbllm.errors import EngineError
from nbllm.testing import ToyBackend
from tests.engine.bruteforce import evaluated_alone
from tests.engine.hand import Asked, Hand

_LABELS = ("positive", "negative", "neutral", "no")


def _request(text: str = "good?", choices: tuple[str, ...] = _LABELS, **more: Any) -> ChoiceRequest:
    return ChoiceRequest(messages=(Message("user", text),), choices=choices, **more)


def _check(one: Asked, request: ChoiceRequest) -> None:
    found = [one.last(index).token_logprobs for index in range(len(request.choices))]
    assert found == [evaluated_alone(request, choice) for choice in request.choices]


def _steps(hand: Hand, one: Asked) -> int:
    before = hand.lane.counters.num_steps
    hand.finish(one)
    return hand.lane.counters.num_steps - before


def test_all_choices_of_a_prompt_take_one_step_after_it() -> None:
    hand = Hand()
    hand.answer(_request("warm up the pace of the lane"))
    request = _request()
    one = hand.ask(request)
    assert _steps(hand, one) == 2
    _check(one, request)


def test_each_choice_is_evaluated_once_and_its_end_never() -> None:
    hand = Hand()
    prompt = len(hand.engine.render(GenerateRequest(messages=(Message("user", "good?"),))).tokens)
    hand.answer(_request(choices=("n", "no", "nothing", "yes")))
    assert hand.context.num_evaluated == prompt + len("nothing") + len("yes")  # the others are on the way to "nothing"


@pytest.mark.parametrize("fixed", [False, True], ids=["free", "reproducible"])
@pytest.mark.parametrize(
    "memory", [{}, {"window": 8}, {"recurrent": True}, {"max_batch": 40}], ids=["plain", "window", "recurrent", "small"]
)
def test_choices_are_as_likely_as_evaluated_alone(memory: dict[str, Any], fixed: bool) -> None:
    request = _request(choices=(*_LABELS, "x" * (LONGEST + 1), "x" * LONGEST), reproducible=fixed)
    _check(Hand(ToyBackend(**memory)).answer(request), request)


def test_more_choices_than_branch_slots_come_in_several_steps() -> None:
    request = _request(choices=tuple(f"label {number}" for number in range(70)))
    _check(Hand().answer(request), request)


@given(
    choices=st.lists(st.text("ab<|im_end>é", min_size=1, max_size=12), min_size=2, max_size=12, unique=True),
    fixed=st.booleans(),
    kv_tokens=st.sampled_from([256, 300, 1024]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_choices_are_as_likely_as_evaluated_alone(choices: list[str], fixed: bool, kv_tokens: int) -> None:
    request = _request(choices=tuple(choices), reproducible=fixed)
    hand = Hand(kv_tokens=kv_tokens)
    rows = [hand.ask(replace(request, priority="batch")) for _ in range(3)]
    hand.finish(*rows)
    for row in rows:
        _check(row, request)


def test_rows_of_a_table_share_their_instruction() -> None:
    hand = Hand()
    rows = [hand.ask(_request("the same long instruction " * 4 + name, priority="batch")) for name in "abc"]
    hand.finish(*rows)
    assert [row.last(0).usage.cached_tokens > 90 for row in rows] == [False, True, True]  # type: ignore[union-attr]
    for row in rows:
        assert isinstance(row.request, ChoiceRequest)
        _check(row, row.request)


def test_usage_counts_every_token_once() -> None:
    one = Hand().answer(_request(choices=("ab", "cde")))
    prompt = len(Hand().engine.render(GenerateRequest(messages=(Message("user", "good?"),))).tokens)
    assert [one.last(index).usage.prompt_tokens for index in (0, 1)] == [prompt + 2, 3]  # type: ignore[union-attr]


def test_cancel_between_prompt_and_choices_ends_every_choice() -> None:
    hand = Hand(ToyBackend(max_batch=4))
    one = hand.ask(_request())
    for _ in range(12):
        hand.step()
    one.ticket.cancel()
    hand.step()
    assert [one.last(index).finish_reason for index in range(4)] == ["interrupted"] * 4
    assert one.last().token_logprobs is None
    assert one.ticket.is_done
    assert hand.context.cells == 0


def test_cancel_during_the_step_of_the_branches_leaves_nothing() -> None:
    hand = Hand()
    one = hand.ask(_request())
    hand.step()
    hand.context.during_decode = one.ticket.cancel
    hand.finish(one)
    assert [one.last(index).finish_reason for index in range(4)] == ["interrupted"] * 4
    hand.context.during_decode = None
    _check(hand.answer(_request()), _request())


def test_step_that_is_stopped_is_evaluated_again() -> None:
    hand = Hand()
    request = _request()
    one = hand.ask(request)
    hand.step()
    while not one.is_done and hand.context.num_steps < 50:
        hand.context.during_decode = hand.lane.stop_step
        hand.step()
        hand.context.during_decode = None
        hand.step()
    _check(one, request)


def test_timeout_ends_every_choice() -> None:
    hand = Hand(ToyBackend(max_batch=2))
    one = hand.ask(_request(timeout_s=0.05))
    hand.finish(one)
    assert [one.last(index).finish_reason for index in range(4)] == ["timeout"] * 4


def test_engine_that_fails_says_so_for_every_choice() -> None:
    hand = Hand(ToyBackend(fail_after=0))
    one = hand.ask(_request())
    with pytest.raises(EngineError) as failure:
        hand.lane.step(1, lambda: 1)
    hand.lane.die(failure.value)
    assert [one.last(index).finish_reason for index in range(4)] == ["error"] * 4


def test_full_pool_is_shared_in_turn_with_answers_that_grow() -> None:
    hand = Hand(context_length=128, kv_tokens=150)
    sampling = SamplingParams(temperature=0, max_tokens=60, logit_bias={258: -100, 261: -100})
    talk = hand.ask(GenerateRequest(text="talk", sampling=sampling))
    request = _request(choices=("a" * 40, "b" * 40), priority="batch")
    rows = [hand.ask(request) for _ in range(4)]
    hand.finish(talk, *rows)
    assert len(talk.tokens()) == 60
    for row in rows:
        _check(row, request)


def test_person_goes_before_a_tables_branches() -> None:
    hand = Hand()
    row = hand.ask(_request("r", priority="batch"))
    while hand.lane.load[2] < len(hand.engine.render(GenerateRequest(messages=(Message("user", "r"),))).tokens):
        hand.step()
    person = hand.ask(_request("p"))
    hand.step()
    assert not row.is_done  # its branches would have fitted beside the person's prompt
    hand.finish(row, person)
