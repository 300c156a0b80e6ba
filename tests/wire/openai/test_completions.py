from __future__ import annotations

from typing import Any

import pytest

from nbllm.core import Constraint, SamplingParams
from nbllm.errors import ParameterError
from nbllm.wire.openai.completions import parse_completion
from tests.wire.openai.bodies import completion, completion_call


def test_smallest_request_has_openais_defaults() -> None:
    call = completion_call()
    (request,) = call.requests
    assert (request.text, request.parse_special) == ("hi", True)
    assert request.sampling == SamplingParams(temperature=1.0, max_tokens=16)
    assert (call.model, call.n, call.best_of, call.echo, call.logprobs) == ("m", 1, 1, False, None)
    assert (call.stream, call.include_usage, call.keep_alive, call.user, call.unknown) == (False, False, None, None, ())


@pytest.mark.parametrize(
    ("prompt", "texts", "tokens"),
    [
        pytest.param("a", ["a"], [None], id="a text"),
        pytest.param("", [""], [None], id="an empty text, which the engine judges"),
        pytest.param(["a", "b"], ["a", "b"], [None, None], id="texts"),
        pytest.param([1, 2.0], [None], [(1, 2)], id="token ids"),
        pytest.param([[1], [2.0, 3]], [None, None], [(1,), (2, 3)], id="lists of token ids"),
    ],
)
def test_all_four_forms_of_a_prompt_are_taken(prompt: Any, texts: list[Any], tokens: list[Any]) -> None:
    requests = completion_call(prompt=prompt).requests
    assert [request.text for request in requests] == texts
    assert [request.tokens for request in requests] == tokens


def test_every_option_arrives() -> None:
    call = completion_call(
        prompt=["a", "b"],
        stream=True,
        stream_options={"include_usage": True},
        echo=True,
        logprobs=2.0,
        n=2,
        best_of=2,
        max_tokens=0,
        keep_alive=0,
        user="u",
        regex="x",
        seed=3,
        timeout=9,
        best_off=1,
    )
    assert (call.stream, call.include_usage, call.echo, call.logprobs, call.n) == (True, True, True, 2, 2)
    assert (call.keep_alive, call.user, call.unknown) == (0.0, "u", ("best_off",))
    for request in call.requests:
        assert request.constraint == Constraint("regex", "x")
        assert (request.prompt_logprobs, request.timeout_s) == (True, 9)
        assert request.sampling == SamplingParams(
            temperature=1.0, max_tokens=0, n=2, seed=3, logprobs=True, top_logprobs=2
        )


def test_null_means_absent_for_every_optional_field() -> None:
    from nbllm.wire.openai.shapes import CompletionBody

    optional = [name for name in CompletionBody.__struct_encode_fields__ if name not in ("model", "prompt")]
    assert completion_call(**dict.fromkeys(optional)) == completion_call()


def test_best_of_asks_for_more_answers_with_their_likelihoods() -> None:
    call = completion_call(n=2, best_of=5)
    assert (call.n, call.best_of, call.logprobs) == (2, 5, None)
    assert (call.requests[0].sampling.n, call.requests[0].sampling.logprobs) == (5, True)


def test_logprobs_of_zero_are_logprobs() -> None:
    call = completion_call(logprobs=0)
    assert call.logprobs == 0
    assert (call.requests[0].sampling.logprobs, call.requests[0].sampling.top_logprobs) == (True, 0)


def test_echo_without_logprobs_needs_none_of_the_prompt() -> None:
    assert not completion_call(echo=True).requests[0].prompt_logprobs


@pytest.mark.parametrize(
    ("fields", "needs"),
    [({"prompt": [1, 2], "echo": True}, True), ({"prompt": [1, 2]}, False), ({"prompt": "a", "echo": True}, False)],
    ids=["echo of ids", "ids", "echo of text"],
)
def test_texts_of_prompts_are_needed_for_an_echo_of_ids(fields: dict[str, Any], needs: bool) -> None:
    assert completion_call(**fields).needs_prompt_texts is needs


def test_suffix_goes_with_one_text() -> None:
    assert completion_call(suffix="end").requests[0].suffix == "end"
    assert completion_call(prompt=["a"], suffix="end").requests[0].suffix == "end"
    assert completion_call(prompt=["a", "b"], suffix="").requests[0].suffix is None


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no prompt": ({"prompt": None}, "prompt", "must be a string or a list, not null"),
    "empty list": ({"prompt": []}, "prompt", "is an empty list"),
    "empty list within": ({"prompt": [[1], []]}, "prompt[1]", "is an empty list"),
    "of two kinds": ({"prompt": ["a", 1]}, "prompt[1]", "of another kind"),
    "of two other kinds": ({"prompt": [[1], "a"]}, "prompt[1]", "of another kind"),
    "ids and text": ({"prompt": [1, "a"]}, "prompt[1]", "must be a token id, not a text or a list"),
    "deeper": ({"prompt": [[[1]]]}, "prompt[0][0]", "must be a number, not a list"),
    "boolean id": ({"prompt": [True]}, "prompt[0]", "not a boolean"),
    "negative id": ({"prompt": [1, -1]}, "prompt[1]", "must be a token id, not -1"),
    "half an id": ({"prompt": [[1.5]]}, "prompt[0][0]", "must be a token id, not 1.5"),
    "huge id": ({"prompt": [2**31]}, "prompt[0]", "must be a token id"),
    "too many": ({"prompt": ["a"] * 2049}, "prompt", "at most 2,048"),
    "too many answers": ({"prompt": ["a"] * 30, "n": 100}, "n", "3,000 answers"),
    "too many to choose from": ({"prompt": ["a"] * 30, "best_of": 100}, "best_of", "3,000 answers"),
    "suffix of two": ({"prompt": ["a", "b"], "suffix": "c"}, "suffix", "one prompt that is a text"),
    "suffix of ids": ({"prompt": [1], "suffix": "c"}, "suffix", "one prompt that is a text"),
    "suffix and echo": ({"suffix": "c", "echo": True}, "echo", "goes without suffix"),
    "fewer than n": ({"n": 3, "best_of": 2}, "best_of", "at least n, which is 3"),
    "best as a stream": ({"best_of": 2, "stream": True}, "best_of", "cannot be streamed"),
    "too many to choose": ({"best_of": 129}, "best_of", "from 1 to 128"),
    "logprobs of a chat": ({"logprobs": True}, "logprobs", "must be a number, not a boolean"),
    "too many logprobs": ({"logprobs": 6}, "logprobs", "from 0 to 5"),
    "echo as a number": ({"echo": 1}, "echo", "must be true or false"),
    "n as text": ({"n": "2"}, "n", "must be a number"),
    "max_tokens": ({"max_tokens": -1}, "max_tokens", "out of range"),
}


@pytest.mark.parametrize(("fields", "param", "problem"), WRONG.values(), ids=WRONG.keys())
def test_wrong_field_is_named(fields: dict[str, Any], param: str, problem: str) -> None:
    with pytest.raises(ParameterError) as caught:
        completion_call(**fields)
    assert caught.value.param == param
    assert problem in caught.value.problem


def test_missing_prompt_is_named() -> None:
    with pytest.raises(ParameterError, match="prompt: is required"):
        parse_completion(b'{"model": "m"}')


def test_many_token_ids_are_taken() -> None:
    ids = list(range(100_000))
    assert parse_completion(completion(prompt=ids)).requests[0].tokens == tuple(ids)
