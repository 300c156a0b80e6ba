"""`nbllm.load` of presets: one engine for those of one base, each with its own settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbllm.config import Config, load_config
from nbllm.core import GenerateRequest, Message, ModelInfo, SamplingParams
from nbllm.core.presets import Preset
from nbllm.errors import EngineClosedError
from nbllm.runner import records
from nbllm.runner.client import RemoteEngine
from nbllm.session import loading, sharing
from nbllm.session.attaching import AttachedEngine
from nbllm.session.loading import load, loaded_models
from nbllm.session.model import Model
from nbllm.session.named import named
from nbllm.testing import ScriptedEngine
from tests.session.machine import Machine

MARIO = Preset(name="mario", base="toy", system="You are Mario.", sampling=SamplingParams(temperature=0.0))
LUIGI = Preset(name="luigi", base="toy", system="You are Luigi.")
SMALL: dict[str, Any] = {"context_length": 256, "max_sequences": 1, "kv_tokens": 256}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(loading, "_loaded", {})
    Machine.save(MARIO, LUIGI)
    yield tmp_path / "runtime"
    Machine.close()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(monkeypatch)
    machine.add("toy")
    return machine


def test_presets_and_their_base_share_an_engine(machine: Machine) -> None:
    mario, luigi, base = load("mario"), load("luigi"), load("toy")
    assert [model.name for model in loaded_models()] == ["mario", "luigi", "toy"]
    (engine,) = machine.engines
    assert engine.info.model.name == "toy"
    assert [base.engine, *(model.base_engine for model in (mario, luigi, base))] == [engine] * 4
    for model in (mario, luigi, base):
        engine.enqueue("yes")
        model.chat("hi")
    hi = Message("user", "hi")
    assert [request.messages for request in engine.requests] == [
        (Message("system", "You are Mario."), hi),
        (Message("system", "You are Luigi."), hi),
        (hi,),
    ]


def test_preset_is_loaded_once(machine: Machine) -> None:
    assert load("mario") is load("Mario:latest")
    assert len(machine.engines) == 1


@pytest.mark.usefixtures("machine")
def test_engine_is_closed_with_its_last_model() -> None:
    mario, luigi, base = load("mario"), load("luigi"), load("toy")
    for model in (mario, base):
        engine = luigi.base_engine
        model.close()
        model.close()
        assert not engine.is_closed  # type: ignore[attr-defined]
        with pytest.raises(EngineClosedError, match="load it again"):
            model.chat("hi")
    assert loaded_models() == [luigi]
    again = load("mario")
    assert again is not mario
    assert again.base_engine is engine
    luigi.close()
    again.close()
    assert engine.is_closed  # type: ignore[attr-defined]
    assert loaded_models() == []


def test_options_of_a_preset_load_another_engine_and_those_given_win(machine: Machine) -> None:
    machine.save(replace(MARIO, context_length=512, threads=2))
    mario, base = load("mario"), load("toy")
    assert mario.base_engine is not base.base_engine
    assert load("toy", context_length=512, threads=2).base_engine is mario.base_engine
    assert load("mario", threads=1).base_engine not in (mario.base_engine, base.base_engine)
    given = [(options.get("context_length"), options.get("threads")) for options in machine.options]
    assert given == [(512, 2), (None, None), (512, 1)]


def test_preset_that_was_changed_has_its_new_settings(machine: Machine) -> None:
    before = load("mario")
    machine.save(replace(MARIO, system="You are tired."))
    after = load("mario")
    assert loaded_models() == [after]
    (engine,) = machine.engines
    assert not engine.is_closed
    engine.enqueue("yes")
    after.chat("hi")
    assert engine.requests[0].messages[0] == Message("system", "You are tired.")
    with pytest.raises(EngineClosedError, match=r"load it again: nbllm\.load\('mario'\)"):
        before.chat("hi")


def test_preset_whose_load_options_were_changed_gives_its_old_engine_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("mario")
    machine.save(replace(MARIO, context_length=512))
    closed: list[bool] = []

    def load_after_that(info: ModelInfo, config: Config, **options: Any) -> ScriptedEngine:
        closed.append(machine.engines[0].is_closed)
        return machine.load(info, config, **options)

    monkeypatch.setattr(loading, "load_engine", load_after_that)
    load("mario")
    assert closed == [True]


@pytest.mark.usefixtures("machine")
def test_preset_without_a_name_is_beside_the_one_that_it_is_made_of() -> None:
    config, mario = load_config(), load("mario")
    found = named("mario", config)
    assert found.preset is not None
    louder = loading.opened(replace(found, preset=replace(found.preset, system="LOUD")), "auto", {}, config)
    assert loaded_models() == [mario, louder]
    assert louder.base_engine is mario.base_engine
    assert load("mario") is mario


def test_base_is_shared_with_other_programs_while_one_of_its_models_is_open(machine: Machine, folder: Path) -> None:
    sharing.set_on(True)
    mario, luigi = load("mario"), load("luigi")
    (shared,) = sharing.shared_models()
    assert shared.wait(20)
    mario.close()
    (record,) = records.find(folder)
    assert record.name == "toy"
    machine.engines[0].enqueue("hello")
    remote = RemoteEngine(record.address, token=record.token)
    assert Model(remote).chat("hi").text == "hello"
    remote.close()
    (request,) = machine.engines[0].requests
    assert request.messages == (Message("user", "hi"),)
    luigi.close()
    assert records.find(folder) == []


# ---- the real model


@pytest.fixture
def real() -> None:
    """The presets are of the real model."""
    Machine.save(replace(MARIO, base="smollm2"), replace(LUIGI, base="smollm2"))


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path", "real")
def test_preset_of_the_real_model_answers_as_it_says() -> None:
    with load("smollm2", **SMALL) as base, load("mario", **SMALL) as mario:
        assert mario.base_engine is base.engine
        rendered = mario.engine.render(GenerateRequest(messages=(Message("user", "hi"),)))
        assert rendered.text.count("You are Mario.") == 1
        first, second = (mario.chat("Who are you?", max_tokens=8).text for _ in range(2))
        assert first == second
        assert first == base.chat("Who are you?", system="You are Mario.", temperature=0, max_tokens=8).text


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path", "real")
def test_presets_on_a_server_share_its_process() -> None:
    mario, luigi = load("mario", engine="server", **SMALL), load("luigi", engine="server", **SMALL)
    assert mario.base_engine is luigi.base_engine
    assert isinstance(mario.base_engine, AttachedEngine)
    assert mario.base_engine._runner is not None
    process = psutil.Process(mario.base_engine._runner.pid)
    mario.close()
    assert luigi.chat("hi", max_tokens=1).model == "luigi"
    luigi.close()
    assert not process.is_running()
