from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbllm.config import load_config
from nbllm.core import RANGES, SamplingParams
from nbllm.core.presets import Preset
from nbllm.notebook.conversations import Conversations
from nbllm.notebook.models import SessionModels
from nbllm.notebook.widget.book import TreeBook
from nbllm.notebook.widget.events import Event
from nbllm.notebook.widget.header import Listed, header, listed_models
from nbllm.notebook.widget.talk import Talk
from nbllm.session.loading import load
from nbllm.session.tuning.setting import Setting
from tests.notebook.conftest import ScriptedModels
from tests.session.machine import Machine
from tests.session.tuning.keeping import keep


@pytest.fixture
def models(tmp_path: Path) -> ScriptedModels:
    return ScriptedModels(tmp_path / "toy.gguf")


@pytest.fixture
def talk(models: ScriptedModels) -> Iterator[Talk]:
    def ignore(event: Event) -> None:
        """Nobody looks."""

    conversations = Conversations()
    tree, _ = conversations.choose(name="draft", system="Be brief.")
    talk = Talk(TreeBook(conversations, tree), models, on_event=ignore)
    yield talk
    talk.close()


def setting(talk: Talk, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in header(talk, [])["settings"] if one["name"] == name)
    return found


def test_header_says_what_is_talked_in_and_with(talk: Talk, models: ScriptedModels) -> None:
    said = header(talk, [Listed("toy", "3 MB", is_loaded=True), Listed("other", "1.2 GB")])
    assert (said["conversation"], said["conversations"], said["model"]) == ("draft", ["draft"], "toy")
    assert said["models"] == [
        {"name": "toy", "note": "loaded", "loaded": True},
        {"name": "other", "note": "1.2 GB", "loaded": False},
    ]
    assert said["context"] is None
    models.engine.enqueue("A1")
    talk.send("Q1")
    assert talk.wait(10)
    used, length = talk.context
    assert header(talk, [])["context"] == {"used": used, "length": length}


def test_model_without_a_name_can_be_chosen_back(talk: Talk) -> None:
    assert [one["name"] for one in header(talk, [Listed("other", "")])["models"]] == ["other", "toy"]


def test_settings_are_the_sampling_parameters_and_the_system_message_first(talk: Talk) -> None:
    settings = header(talk, [])["settings"]
    names = [one["name"] for one in settings]
    assert names[:4] == ["system", "temperature", "max_tokens", "seed"]
    assert {one["kind"] for one in settings} == {"text", "number", "integer", "lines"}
    known = SamplingParams.from_options({})
    assert all(hasattr(known, name) for name in names[1:])
    for one in settings:
        allowed = RANGES.get(one["name"])
        if allowed is not None:
            assert (one["kind"] == "integer") is (allowed.kind is int)
            assert one["min"] == allowed.low
            assert one["max"] in (allowed.high, None)


def test_setting_has_its_value_and_what_holds_without_one(talk: Talk) -> None:
    assert (setting(talk, "temperature")["value"], setting(talk, "temperature")["default"]) == (None, 0.8)
    assert setting(talk, "presence_penalty")["default"] == 0.0
    assert setting(talk, "system")["default"] == "Be brief."
    talk.set_options({"temperature": 0.0, "stop": ["a", "b"], "system": "Be long."})
    assert setting(talk, "temperature")["value"] == 0.0
    assert setting(talk, "stop")["value"] == ["a", "b"]
    assert setting(talk, "system")["value"] == "Be long."


def test_default_is_the_models_own_once_it_is_loaded(talk: Talk, models: ScriptedModels) -> None:
    models.engine.info = replace(models.engine.info, defaults=SamplingParams(temperature=0.3))
    models.engine.enqueue("A1")
    talk.send("Q1")
    assert talk.wait(10)
    assert setting(talk, "temperature")["default"] == 0.3
    assert setting(talk, "top_k")["default"] == 40


def test_listed_models_are_those_with_names_and_what_is_loaded(
    models: ScriptedModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small.gguf").write_bytes(b"x" * 2_000_000)
    monkeypatch.setenv("NBLLM_MODELS_DIR", str(tmp_path / "models"))
    models.load("toy")
    listed = {one.name: one for one in listed_models(models)}
    assert listed["small"] == Listed("small", "2 MB")
    assert listed["toy"].is_loaded


def test_names_that_a_page_cannot_carry_are_changed(talk: Talk) -> None:
    said = header(talk, [Listed("half \ud83d\x00", "")])
    assert said["models"][0]["name"] == "half \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("name", ["toy", "mario"])
def test_tuned_model_is_one_entry_that_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path / "runtime"))
    machine = Machine(monkeypatch)
    keep(machine.add("toy"), load_config(), Setting("Q8_0"))
    machine.save(Preset(name="mario", base="toy", system="You are Mario."))
    model = load(name)
    try:
        listed = listed_models(SessionModels())
        assert [one.name for one in listed if one.is_loaded] == [name]
        assert sorted(one.name for one in listed if one.name in ("toy", "mario")) == ["mario", "toy"]
    finally:
        model.close()
