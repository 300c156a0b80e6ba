from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from nbllm.core import ChoiceRequest, GenerateRequest, Message, Row
from nbllm.engine.likelihoods import chosen_logprobs
from nbllm.engine.plan import FIXED_WIDTH
from nbllm.errors import EngineError, InvalidRequestError, ParameterError
from nbllm.session.choosing import Choices
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine

_LABELS = ("positive", "negative", "hard to say")
_PROMPT = "How does this sound: 'It broke at once'?"


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    yield engine
    engine.close()


def test_probabilities_are_normalised_and_keep_the_order() -> None:
    found = Choices.of({"a": -2000.0, "b": -2000.0 - math.log(3), "c": -9000.0})
    assert list(found.probabilities) == ["a", "b", "c"]
    assert found.probabilities == pytest.approx({"a": 0.75, "b": 0.25, "c": 0.0})
    assert found.logprobs["c"] == -9000.0
    assert found.best == "a"


def test_first_of_equally_likely_choices_is_the_best() -> None:
    assert Choices.of({"x": -1.0, "a": -1.0}).best == "x"


def test_choose_sends_what_it_was_told(scripted: ScriptedEngine) -> None:
    scripted.enqueue("no")
    found = Model(scripted).choose(
        "q", iter(["yes", "no"]), system="s", template_options={"a": 1}, cache_prompt=False, timeout=3
    )
    assert found.best == "no"
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert scripted.requests == [
        ChoiceRequest(
            messages=(Message("system", "s"), Message("user", "q")),
            choices=("yes", "no"),
            template_options={"a": 1},
            cache_prompt=False,
            timeout_s=3,
        )
    ]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        pytest.param({"choices": "yes"}, ParameterError, "list of texts", id="one text"),
        pytest.param({"choices": 5}, ParameterError, "list of texts", id="number"),
        pytest.param({"choices": ["yes"]}, ParameterError, "2 to", id="single"),
        pytest.param({"choices": ["yes", None]}, ParameterError, "not None", id="none among them"),
        pytest.param({"choices": ["a", "b"], "timeout": "soon"}, ParameterError, "timeout", id="timeout"),
        pytest.param({"choices": ["a", "b"], "reproducible": 1}, ParameterError, "reproducible", id="switch"),
        pytest.param({"choices": ["a", "b"], "prompt": " "}, InvalidRequestError, "empty", id="empty prompt"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    scripted: ScriptedEngine, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Model(scripted).choose(**{"prompt": "q", **given})
    assert not scripted.requests


def test_failure_of_the_engine_is_raised(scripted: ScriptedEngine) -> None:
    scripted.enqueue(["", EngineError("it broke")])
    with pytest.raises(EngineError, match="it broke"):
        Model(scripted).choose("q", ["a", "b"])


# ---- the real model


def _brute_force(model: Model, labels: Iterable[str], *, fixed: bool) -> Choices:
    """Prompt, label and end through llama.cpp; in the reproducible lane's shapes, or all in one batch."""
    backend = model.engine._backend  # type: ignore[attr-defined]
    prompt = list(model.engine.render(GenerateRequest(messages=(Message("user", _PROMPT),))).tokens)
    end = model.engine.tokenize("<|im_end|>", parse_special=True)
    num_slots = FIXED_WIDTH if fixed else 1
    context = backend.make_context(kv_tokens=256, num_slots=num_slots, unified=not fixed, kv_type="f16")
    context.set_threads(1)
    found = {}
    try:
        for label in labels:
            tokens = [*prompt, *model.engine.tokenize(label), *end]
            context.forget(0)
            found[label] = sum(
                _in_fixed_shapes(context, tokens, len(prompt)) if fixed else _at_once(context, tokens, len(prompt))
            )
    finally:
        context.close()
    return Choices.of(found)


def _at_once(context: Any, tokens: list[int], num_prompt: int) -> list[float]:
    context.decode([Row(token, place, 0, place >= num_prompt - 1) for place, token in enumerate(tokens[:-1])])
    places = range(num_prompt, len(tokens))
    return [chosen_logprobs(context.logits(place - 1), [tokens[place]])[0] for place in places]


def _in_fixed_shapes(context: Any, tokens: list[int], num_prompt: int) -> list[float]:
    for start in range(0, num_prompt, 32):
        part = range(start, min(start + 32, num_prompt))
        context.decode([Row(tokens[place], place, 0, place == num_prompt - 1) for place in part])
    row, found = (num_prompt - 1) % 32, []
    for place in range(num_prompt, len(tokens)):  # the end itself needs no output
        found += chosen_logprobs(context.logits(row), [tokens[place]])
        if place + 1 == len(tokens):
            break
        context.decode([Row(tokens[place], place, 0, True), *(Row(0, 0, slot, True) for slot in range(1, FIXED_WIDTH))])
        row = 0
        for slot in range(1, FIXED_WIDTH):
            context.forget(slot)
    return found


@pytest.mark.model
@pytest.mark.parametrize(("fixed", "close"), [(True, 1e-3), (False, 0.05)], ids=["the same shapes", "other shapes"])
def test_probabilities_are_those_of_evaluating_every_label(smollm2: Model, fixed: bool, close: float) -> None:
    found = smollm2.choose(_PROMPT, _LABELS, reproducible=fixed)
    wanted = _brute_force(smollm2, _LABELS, fixed=fixed)
    assert found.probabilities == pytest.approx(wanted.probabilities, abs=close)
    assert found.logprobs == pytest.approx(wanted.logprobs, abs=close if fixed else 0.5)


@pytest.mark.model
def test_timeout_of_choices_is_raised(smollm2: Model) -> None:
    with pytest.raises(TimeoutError, match="longer"):
        smollm2.choose("word " * 600, _LABELS, timeout=0.01)
