"""Presets in cells and chats: their system message where there is no other, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter

from nbllm.core import Message, SamplingParams
from nbllm.core.presets import Preset
from nbllm.notebook.conversations import Conversations
from nbllm.notebook.extension import load_ipython_extension
from nbllm.notebook.models import SessionModels
from nbllm.notebook.widget.book import TreeBook
from nbllm.notebook.widget.header import header, listed_models
from nbllm.notebook.widget.talk import Talk
from tests.frames.compare.talking import repeating_machine
from tests.notebook.conftest import Publisher
from tests.session.machine import Machine

MARIO = Preset(
    name="mario",
    base="toy",
    system="You are Mario.",
    messages=(Message("user", "Who?"), Message("assistant", "It's-a me!")),
    sampling=SamplingParams(temperature=0.25, stop=("!",)),
)
WHOLE = "You are Mario. / Who? / It's-a me! / "


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with repeating_machine(monkeypatch, MARIO) as machine:
        yield machine


class Cells:
    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.publisher = shell.display_pub = Publisher()  # type: ignore[no-untyped-call]
        load_ipython_extension(shell)

    def run(self, code: str) -> Any:
        """What the cell gave."""
        self.publisher.outputs.clear()
        result = self._shell.run_cell(code, store_history=True)
        assert result.success
        return result.result

    def said(self, code: str) -> str:
        """What the cell printed."""
        self.run(code)
        text: str = self.publisher.outputs[-1]["data"]["text/plain"]
        return text


@pytest.fixture
def cells(shell: Any, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cells:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Cells(shell)


def test_cell_has_the_presets_system_message_unless_it_has_its_own(cells: Cells, machine: Machine) -> None:
    assert cells.run("%chat --new -m mario hi").text == f"{WHOLE}hi"
    assert cells.run("%chat --new -m mario -s 'You are Luigi.' hi").text == "You are Luigi. / Who? / It's-a me! / hi"
    assert cells.run("%chat --new -m toy hi").text == "hi"
    assert len(machine.engines) == 1


def test_second_cell_of_a_conversation_has_the_preset_once(cells: Cells) -> None:
    answer = cells.run("%chat --new -m mario one").text
    assert cells.run("%chat -m mario two").text == f"{WHOLE}one / {answer} / two"
    assert cells.run("%chat -m toy three").text.startswith("one / ")


def test_kept_answer_is_of_the_preset_as_it_is_now(cells: Cells, machine: Machine) -> None:
    cells.run("%chat --cache --new -m mario hi")
    cells.run("%chat --cache --new -m mario hi")
    assert len(machine.engines[0].requests) == 1
    machine.save(replace(MARIO, system="You are tired."))
    assert cells.run("%chat --cache --new -m mario hi").text.startswith("You are tired. / ")
    assert cells.run("%chat --cache --new -m toy hi").text == "hi"


def test_kept_answer_of_a_preset_needs_no_model(cells: Cells, machine: Machine) -> None:
    cells.run("%chat --cache --new -m mario hi")
    cells.run("%llm unload mario")
    assert cells.run("%chat --cache --new -m mario hi").text == f"{WHOLE}hi"
    assert len(machine.engines) == 1


def test_parameters_of_an_answer_are_those_in_force(cells: Cells) -> None:
    cells.run("%chat --new -m mario hi")
    told = str([output["metadata"] for output in cells.publisher.outputs])
    assert "'temperature': 0.25" in told
    assert "You are Mario." in told


def test_show_lists_what_the_preset_adds(cells: Cells) -> None:
    cells.run("%chat --new -m mario hi")
    said = cells.said("%llm show")
    assert "system: You are Mario." in said
    assert "earlier question: Who?" in said
    assert "question: hi" in said
    assert said.count("You are Mario.") == 2  # in the table, and in the prompt


def test_status_and_unload_know_a_preset_by_its_name(cells: Cells, machine: Machine) -> None:
    cells.run("%llm load mario")
    cells.run("%llm load toy")
    assert "mario, made of scripted" in cells.said("%llm status")
    assert cells.said("%llm unload mario") == "mario was unloaded"
    assert not machine.engines[0].is_closed
    assert cells.said("%llm unload mario") == "no model is loaded"
    assert cells.said("%llm unload toy") == "toy was unloaded"
    assert machine.engines[0].is_closed


def test_preset_that_was_changed_since_can_be_unloaded(cells: Cells, machine: Machine) -> None:
    cells.run("%llm load mario")
    machine.save(replace(MARIO, system="You are tired."))
    assert cells.said("%llm unload mario") == "mario was unloaded"
    assert machine.engines[0].is_closed


@pytest.mark.usefixtures("cells")
def test_names_of_presets_are_completed(shell: Any) -> None:
    with provisionalcompleter():
        found = {completion.text for completion in shell.Completer.completions("%chat -m ma", 11)}
    assert "mario" in found


# ---- the chat


@pytest.fixture
def talk(machine: Machine) -> Iterator[Talk]:
    conversations = Conversations()
    tree, _ = conversations.choose(name="draft")
    talk = Talk(TreeBook(conversations, tree), SessionModels(), model="mario", on_event=lambda event: None)
    yield talk
    talk.close()


def answer(talk: Talk, text: str) -> str:
    talk.send(text)
    assert talk.wait(20)
    assert talk.last is not None
    return talk.last.text


def default(talk: Talk, name: str) -> Any:
    return next(one["default"] for one in header(talk, [])["settings"] if one["name"] == name)


def test_chat_has_the_preset_once_unless_it_has_its_own_system_message(talk: Talk) -> None:
    first = answer(talk, "one")
    assert first == f"{WHOLE}one"
    assert answer(talk, "two") == f"{WHOLE}one / {first} / two"
    talk.set_options({"system": "You are Luigi."})
    assert answer(talk, "three").startswith("You are Luigi. / Who? / ")
    talk.set_options({"system": None})
    assert answer(talk, "four").startswith(WHOLE)


def test_drawer_shows_what_the_preset_says_before_and_after_it_is_loaded(talk: Talk) -> None:
    expected = ("You are Mario.", 0.25, ["!"])
    assert tuple(default(talk, name) for name in ("system", "temperature", "stop")) == expected
    answer(talk, "one")
    assert tuple(default(talk, name) for name in ("system", "temperature", "stop")) == expected
    talk.choose_model("toy")
    assert default(talk, "system") == ""
    assert default(talk, "temperature") != 0.25


def test_chat_goes_on_with_a_preset_that_was_changed(talk: Talk, machine: Machine) -> None:
    answer(talk, "one")
    machine.save(replace(MARIO, system="You are tired."))
    assert answer(talk, "two").startswith("You are tired. / ")


def test_presets_and_their_base_are_listed_apart(talk: Talk) -> None:
    answer(talk, "one")
    listed = {one.name: one for one in listed_models(SessionModels())}
    assert not listed["toy"].is_loaded
    assert listed["mario"].is_loaded
