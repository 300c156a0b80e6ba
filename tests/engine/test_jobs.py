"""What outputs become: tokens, vectors, likelihoods. Over the toy model, whose logits are known."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nbllm.core import Constraint, EmbedRequest, GenerateRequest, Row, SamplingParams, ScoreRequest
from nbllm.engine.likelihoods import log_softmax
from nbllm.testing import EOS, IM_END, ToyBackend
from tests.engine.hand import Hand

_NO_END = {IM_END: -100.0, EOS: -100.0}


def _request(text: str = "hello", **sampling: Any) -> GenerateRequest:
    return GenerateRequest(text=text, sampling=SamplingParams(**{"temperature": 0, "max_tokens": 8, **sampling}))


def _logprobs(tokens: list[int]) -> Any:
    """The toy's log-probabilities after each token."""
    context = ToyBackend().make_context(kv_tokens=512, num_slots=1, unified=True, kv_type="f16")
    context.decode([Row(token, place, 0, True) for place, token in enumerate(tokens)])
    return [log_softmax(context.logits(row)) for row in range(len(tokens))]


def test_greedy_takes_the_likeliest_token_each_time() -> None:
    one = Hand().answer(_request(logit_bias=_NO_END))
    tokens = [256, *b"hello"]
    for token in one.tokens():
        chances = _logprobs(tokens)[-1]
        chances[[IM_END, EOS]] = -np.inf
        assert token == chances.argmax()
        tokens.append(token)
    assert len(one.tokens()) == 8


def test_no_tokens_are_wanted() -> None:
    one = Hand().answer(_request(max_tokens=0))
    assert (one.tokens(), one.text(), one.last().finish_reason) == ((), "", "length")


def test_end_token_ends_and_is_no_part_of_the_answer() -> None:
    one = Hand(ToyBackend(ends=50)).answer(_request())
    assert (one.tokens(), one.last().finish_reason) == ((), "stop")


def test_answer_ends_where_the_context_does() -> None:
    hand = Hand(context_length=16)
    one = hand.answer(_request("0123456789", max_tokens=None, logit_bias=_NO_END))
    assert len(one.tokens()) == 5
    assert one.last().finish_reason == "length"


def test_completion_has_sixteen_tokens_unless_told_otherwise() -> None:
    one = Hand().answer(_request(max_tokens=None, logit_bias=_NO_END))
    assert len(one.tokens()) == 16


def test_logprobs_are_those_of_the_model_before_any_bias() -> None:
    one = Hand().answer(_request(logprobs=True, top_logprobs=3, logit_bias={**_NO_END, ord("q"): 100}))
    entries = [entry for chunk in one.chunks[0] for entry in chunk.logprobs]
    wanted = _logprobs([256, *b"hello", *one.tokens()])[5:]
    assert one.text() == "q" * 8
    for entry, row in zip(entries, wanted, strict=False):
        assert entry.logprob == pytest.approx(row[ord("q")])
        assert [token for token, _, _ in entry.top] == np.argsort(-row)[:3].tolist()
        assert [value for _, _, value in entry.top] == sorted((value for _, _, value in entry.top), reverse=True)
    assert len(entries) == 8


def test_seeds_of_choices_differ_and_stay_in_range() -> None:
    highest = 2**32 - 2
    one = Hand().answer(_request(n=2, seed=highest, temperature=1))
    assert [one.last(index).seed for index in range(2)] == [highest, 0]


def test_stop_text_ends_the_answer() -> None:
    whole = Hand().answer(_request(max_tokens=20, logit_bias=_NO_END)).text()
    one = Hand().answer(_request(max_tokens=20, logit_bias=_NO_END, stop=(whole[5:7],)))
    assert (one.text(), one.last().finish_reason) == (whole[:5], "stop")


@pytest.mark.parametrize("logprobs", [False, True], ids=["forced together", "one at a time"])
def test_constraint_gives_the_same_text_with_and_without_jumps(logprobs: bool) -> None:
    constraint = Constraint("regex", "(cat|dog) (sat|ran) on the (mat|moon)")
    one = Hand().answer(replace(_request(max_tokens=40, logprobs=logprobs), constraint=constraint))
    other = Hand().answer(replace(_request(max_tokens=40), constraint=constraint, reproducible=True))
    assert one.text() == other.text()
    assert one.last().finish_reason == "stop"


def test_constraint_is_cut_honestly() -> None:
    constraint = Constraint("choice", '["a long choice indeed"]')
    one = Hand().answer(replace(_request(max_tokens=6), constraint=constraint))
    assert (one.text(), one.last().finish_reason) == ("a long", "length")


def test_constrained_sampling_has_the_constrained_distribution() -> None:
    """A free try, and a masked one when that fails, must not favour what the free try likes."""
    constraint = Constraint("regex", "[ab]")
    row = _logprobs([256, *b"hello"])[-1]
    request = replace(_request(temperature=1, top_k=0, top_p=1, min_p=0, n=100, seed=1), constraint=constraint)
    one = Hand(max_sequences=8).answer(request)
    counts = Counter(one.text(index) for index in range(100))
    assert set(counts) <= {"a", "b"}
    chance = 1 / (1 + np.exp(row[ord("b")] - row[ord("a")]))
    assert abs(counts["a"] / 100 - chance) < 0.2


def test_reasoning_is_free_and_the_answer_is_constrained() -> None:
    """The template opens the think tag, and the bias closes it at once."""
    template = "{% for message in messages %}{{ message.content }}{% endfor %}<think>"
    hand = Hand(ToyBackend(chat_template=template))
    from nbllm.core import Message

    request = GenerateRequest(
        messages=(Message("user", "q"),),
        sampling=SamplingParams(temperature=0, max_tokens=80, logit_bias=_NO_END),
        constraint=Constraint("choice", '["yes", "no"]'),
    )
    one = hand.answer(request)
    reasoning = "".join(chunk.reasoning for chunk in one.chunks[0])
    assert reasoning
    assert one.text() in ("", "yes", "no")


def test_embedding_is_the_unit_mean_of_the_states() -> None:
    context = ToyBackend().make_context(kv_tokens=64, num_slots=1, unified=True, kv_type="f16")
    context.decode([Row(token, place, 0, True) for place, token in enumerate([256, *b"text"])], embeddings=True)
    mean = sum(context.embedding(row).astype(np.float64) for row in range(5)) / 5
    one = Hand().answer(EmbedRequest(texts=("other", "text")))
    np.testing.assert_allclose(one.last(1).embedding, mean / np.linalg.norm(mean), atol=1e-6)
    assert one.last(1).embedding.dtype == np.float32


@pytest.mark.parametrize(("pooling", "row"), [("last", 4), ("cls", 0)])
def test_embedding_follows_the_models_pooling(pooling: str, row: int) -> None:
    backend = ToyBackend()
    backend.pooling = pooling
    context = ToyBackend().make_context(kv_tokens=64, num_slots=1, unified=True, kv_type="f16")
    context.decode([Row(token, place, 0, True) for place, token in enumerate([256, *b"text"])], embeddings=True)
    state = context.embedding(row)
    one = Hand(backend).answer(EmbedRequest(texts=("text",)))
    np.testing.assert_allclose(one.last().embedding, state / np.linalg.norm(state), atol=1e-6)


def test_score_has_the_likelihood_of_each_token() -> None:
    one = Hand().answer(ScoreRequest(prompt="to be", continuation=" or"))
    wanted = _logprobs([256, *b"to be or"])
    found = one.last().token_logprobs
    assert found is not None
    assert [entry.token for entry in found] == list(b" or")
    for entry, row in zip(found, wanted[5:8], strict=True):
        assert entry.logprob == pytest.approx(row[entry.token])


def test_log_softmax_survives_masked_logits() -> None:
    row = log_softmax(np.array([1.0, -np.inf, 1.0], np.float32))
    np.testing.assert_allclose(row, [-np.log(2), -np.inf, -np.log(2)])


@pytest.mark.parametrize("max_tokens", [0, 4])
@pytest.mark.parametrize("warm", [False, True], ids=["new", "cached before"])
def test_likelihoods_of_the_prompt_are_the_models(max_tokens: int, warm: bool) -> None:
    hand = Hand()
    if warm:
        hand.answer(_request())
    one = hand.answer(
        replace(_request(max_tokens=max_tokens, logprobs=True, top_logprobs=2, n=2), prompt_logprobs=True)
    )
    tokens = [256, *b"hello"]
    chances = _logprobs(tokens)
    told = [chunk.prompt_logprobs for index in (0, 1) for chunk in one.chunks[index] if chunk.prompt_logprobs]
    assert len(told) == 2  # each answer has them
    for entries in told:
        assert [entry.token for entry in entries] == tokens[1:]
        for place, entry in enumerate(entries):
            assert entry.logprob == pytest.approx(chances[place][entry.token], abs=1e-5)
            assert entry.top[0][0] == chances[place].argmax()


def test_likelihoods_of_a_long_prompt_come_whole_from_many_steps() -> None:
    text = "abcdefgh" * 40
    one = Hand(context_length=512).answer(replace(_request(text, logprobs=True), prompt_logprobs=True))
    (entries,) = (chunk.prompt_logprobs for chunk in one.chunks[0] if chunk.prompt_logprobs)
    assert bytes(entry.token for entry in entries).decode() == text


_WRITTEN = {
    "the engine began it": (GenerateRequest(text="a<|im_end|>b", parse_special=True), [b"a", b"<|im_end|>", b"b"], 0),
    "ids": (GenerateRequest(tokens=(257, *b"a", 258)), [b"<|im_start|>", b"a", b"<|im_end|>"], 1),
    "one id": (GenerateRequest(tokens=(104,)), [b"h"], 1),
    "part of a character": (GenerateRequest(tokens=(0xF0, 0x9F)), [b"\xf0", b"\x9f"], 1),
}


@pytest.mark.parametrize(("request_", "data", "num_unknown"), _WRITTEN.values(), ids=_WRITTEN.keys())
def test_likelihoods_of_the_prompt_have_each_token_that_was_given(
    request_: GenerateRequest, data: list[bytes], num_unknown: int
) -> None:
    sampling = SamplingParams(max_tokens=1, temperature=0.0, logprobs=True)
    one = Hand().answer(replace(request_, sampling=sampling, prompt_logprobs=True))
    (entries,) = (chunk.prompt_logprobs for chunk in one.chunks[0] if chunk.prompt_logprobs)
    assert [entry.data for entry in entries] == data
    assert [math.isnan(entry.logprob) for entry in entries] == [place < num_unknown for place in range(len(data))]
