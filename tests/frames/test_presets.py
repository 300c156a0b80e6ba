"""Tables that are asked of a preset: each row with what it says, once, and kept as what was asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nbllm
from nbllm.core import ChoiceRequest, GenerateRequest, Message, SamplingParams
from nbllm.core.presets import Preset
from nbllm.errors import ParameterError
from nbllm.frames.run import Ask, RunOptions, run
from nbllm.session.cache import AnswerCache
from nbllm.session.model import Model
from nbllm.session.requests import Options
from tests.frames.answering import AnsweringEngine
from tests.frames.compare.talking import repeating_machine
from tests.session.machine import Machine

MARIO = Preset(name="mario", base="toy", system="You are Mario.", sampling=SamplingParams(max_tokens=3))
HI = Message("user", "hi")


@pytest.fixture
def quiet(tmp_path: Path) -> RunOptions:
    return RunOptions(progress=False, cache=AnswerCache(tmp_path / "answers"))


@pytest.fixture
def engine(tmp_path: Path) -> AnsweringEngine:
    path = tmp_path / "toy.gguf"
    path.write_bytes(b"not really")
    return AnsweringEngine(path)


def ask(model: Model, text: str, options: RunOptions, **chat: Any) -> Any:
    (outcome,) = run(model, [Ask(Options.of(chat).chat(text))], 1, options)
    assert outcome is not None
    return outcome


def test_rows_get_the_preset_once(engine: AnsweringEngine, quiet: RunOptions) -> None:
    ask(Model(engine, preset=MARIO), "hi", quiet)
    ask(Model(engine, preset=MARIO), "hi", quiet, system="You are Luigi.", max_tokens=9)
    asked = [request for request in engine.requests if isinstance(request, GenerateRequest)]
    assert [request.messages for request in asked] == [
        (Message("system", "You are Mario."), HI),
        (Message("system", "You are Luigi."), HI),
    ]
    assert [request.sampling.max_tokens for request in asked] == [3, 9]


@pytest.mark.parametrize(
    ("other", "is_cached"),
    [
        pytest.param(MARIO, True, id="same"),
        pytest.param(replace(MARIO, name="luigi"), True, id="same by another name"),
        pytest.param(replace(MARIO, system="You are Luigi."), False, id="another system prompt"),
        pytest.param(None, False, id="base"),
    ],
)
def test_kept_answers_are_of_what_was_asked(
    engine: AnsweringEngine, quiet: RunOptions, other: Preset | None, is_cached: bool
) -> None:
    ask(Model(engine, preset=MARIO), "hi", quiet)
    assert ask(Model(engine, preset=other), "hi", quiet).cached is is_cached


def test_preset_that_changes_nothing_shares_what_its_base_was_answered(
    engine: AnsweringEngine, quiet: RunOptions
) -> None:
    ask(Model(engine), "hi", quiet)
    assert ask(Model(engine, preset=Preset(name="idle", base="toy", threads=2)), "hi", quiet).cached


def test_answer_that_is_as_long_as_the_preset_allows_is_whole(engine: AnsweringEngine, quiet: RunOptions) -> None:
    """The engine stops after three tokens, as if that were the limit."""
    model = Model(engine, preset=MARIO)
    assert ask(model, "long", quiet).value.finish_reason == "length"
    assert ask(model, "long", quiet).cached


# ---- by name


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with repeating_machine(monkeypatch, MARIO) as machine:
        yield machine


def test_verbs_take_a_presets_name(machine: Machine) -> None:
    frame = pd.DataFrame({"text": ["hi", "ho"]})
    mapped = frame.llm.map("{text}", model="mario", cache=False, progress=False)
    assert mapped["response"].tolist() == ["You are Mario. / hi", "You are Mario. / ho"]
    frame["text"].llm.classify(["yes", "no"], proba=True, model="mario", cache=False, progress=False)
    (engine,) = machine.engines
    choices = [request for request in engine.requests if isinstance(request, ChoiceRequest)]
    assert choices
    assert {[turn.content for turn in request.messages].count("You are Mario.") for request in choices} == {1}


def test_prompts_are_those_that_the_preset_makes(machine: Machine) -> None:
    table = pd.DataFrame({"text": ["hi"]}).llm.prompts("{text}", model="mario")
    assert table["prompt"][0].count("You are Mario.") == 1
    assert len(machine.engines) == 1


def test_comparison_of_a_preset_with_its_base(machine: Machine) -> None:
    frame = nbllm.compare("hi", ["toy", "mario"], cache=False, progress=False)
    assert frame["model"].tolist() == ["toy", "mario"]
    assert frame["response"].tolist() == ["hi", "You are Mario. / hi"]
    assert [engine.is_closed for engine in machine.engines] == [True, True]


def test_comparison_finds_what_a_preset_was_answered_and_loads_nothing(machine: Machine, tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers")
    for _ in range(2):
        frame = nbllm.compare("hi", "mario", cache=cache, progress=False)
        assert frame["response"].tolist() == ["You are Mario. / hi"]
    assert len(machine.engines) == 1
    machine.save(replace(MARIO, system="You are tired."))
    frame = nbllm.compare("hi", "mario", cache=cache, progress=False)
    assert frame["response"].tolist() == ["You are tired. / hi"]


def test_replay_asks_the_preset_again_and_says_when_it_was_changed(machine: Machine) -> None:
    frame = nbllm.compare("hi", ["toy", "mario"], cache=False, progress=False)
    again = nbllm.replay(frame, cache=False, progress=False)
    assert again["response"].tolist() == frame["response"].tolist()
    machine.save(replace(MARIO, system="You are tired."))
    with pytest.raises(ParameterError, match="mario has another preset now"):
        nbllm.replay(frame, cache=False, progress=False)
    changed = nbllm.replay(frame, allow_changes=True, cache=False, progress=False)
    assert changed["response"].tolist() == ["hi", "You are tired. / hi"]


def test_replay_of_a_preset_that_has_no_name_wants_it_again(machine: Machine) -> None:
    with nbllm.load("mario") as model:
        frame = nbllm.compare("hi", model, cache=False, progress=False)
        with pytest.raises(ParameterError, match="models"):
            nbllm.replay(frame, cache=False, progress=False)
        again = nbllm.replay(frame, models={"mario": model}, cache=False, progress=False)
    assert again["response"].tolist() == ["You are Mario. / hi"]


def test_table_of_models_says_which_preset_is_loaded(machine: Machine) -> None:
    machine.save(replace(MARIO, name="luigi"))
    with nbllm.load("mario"):
        table = nbllm.models().set_index("name")
    assert table.loc[["luigi", "mario", "toy"], "loaded"].tolist() == [False, True, True]
