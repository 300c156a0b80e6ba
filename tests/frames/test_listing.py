"""The table of models, and which of them are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.config import load_config
from nbllm.core.presets import Preset
from nbllm.frames.listing import models
from nbllm.session.loading import load
from nbllm.session.tuning.setting import Setting
from tests.session.machine import Machine
from tests.session.tuning.keeping import keep


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    monkeypatch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path / "runtime"))
    yield Machine(monkeypatch)
    Machine.close()


def loaded() -> set[str]:
    table = models()
    return set(table[table.loaded].name)


@pytest.mark.parametrize("setting", [None, Setting(threads=1), Setting("Q8_0")], ids=["plain", "options", "weights"])
def test_loaded_model_is_marked_whatever_it_is_tuned_to(machine: Machine, setting: Setting | None) -> None:
    path = machine.add("toy")
    machine.add("other")
    machine.save(Preset(name="mario", base="toy"))
    if setting is not None:
        keep(path, load_config(), setting)
    assert loaded() == set()
    model = load("toy")
    assert loaded() == {"toy"}
    model.close()
    assert loaded() == set()


def test_preset_of_a_tuned_model_is_marked_and_its_base_with_it(machine: Machine) -> None:
    keep(machine.add("toy"), load_config(), Setting("Q8_0"))
    machine.save(Preset(name="mario", base="toy", system="You are Mario."))
    load("mario")
    assert loaded() == {"mario", "toy"}
