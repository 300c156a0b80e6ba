"""`nbllm.load` of a model that was tuned on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbllm.config import load_config
from nbllm.core import GenerateRequest, Message
from nbllm.core.presets import Preset
from nbllm.errors import EngineError
from nbllm.frames.using import model_of
from nbllm.notebook.models import SessionModels
from nbllm.session import loading
from nbllm.session.cachekey import key
from nbllm.session.loading import load
from nbllm.session.tuning.kept import forget
from nbllm.session.tuning.machine import this_machine
from nbllm.session.tuning.measurement import Measurement
from nbllm.session.tuning.record import Record, written
from nbllm.session.tuning.setting import Setting
from nbllm.store import model_hash
from nbllm.store.tunings import Place, tunings_folder
from tests.session.machine import Machine


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    monkeypatch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path / "runtime"))
    yield Machine(monkeypatch)
    Machine.close()


def tune(path: Path, setting: Setting) -> Place:
    place = Place.of(tunings_folder(load_config()), path.stat().st_size, model_hash(path), this_machine().key)
    place.folder.mkdir(exist_ok=True)
    place.path.write_bytes(written(Record("toy", "here", False, (Measurement(setting, size_bytes=4),), setting)))
    place.weights("Q8_0").write_bytes(b"GGUF")
    return place


def test_tuned_file_and_options_are_used_and_told_of(machine: Machine) -> None:
    place = tune(machine.add("toy"), Setting("Q8_0", threads=1, max_batch=128))
    model = load("toy")
    (options,) = machine.options
    assert (options["threads"], options["max_batch"]) == (1, 128)
    assert (model.name, model.info.model.path) == ("toy", str(place.weights("Q8_0")))
    assert model.info.summary.endswith("; tuned for this machine: Q8_0, threads=1, max_batch=128")
    assert load("toy") is model


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"threads": 2}, {"threads": 2, "flash_attention": True}),
        ({"flash_attention": False}, {"threads": 1, "flash_attention": False}),
        ({"kv_type": "f16"}, {"threads": 1, "kv_type": "f16"}),
    ],
    ids=["threads", "flash attention", "kv type"],
)
def test_options_that_are_given_win(machine: Machine, given: dict[str, Any], expected: dict[str, Any]) -> None:
    tune(machine.add("toy"), Setting(threads=1, flash_attention=True))
    load("toy", **given)
    (options,) = machine.options
    assert {name: options[name] for name in ("threads", "flash_attention", "kv_type") if name in options} == expected


def test_preset_wins_over_the_tuning_of_its_base(machine: Machine) -> None:
    tune(machine.add("toy"), Setting(threads=1, max_batch=128))
    machine.save(Preset(name="mario", base="toy", threads=3))
    load("mario")
    (options,) = machine.options
    assert (options["threads"], options["max_batch"]) == (3, 128)


def test_cells_and_tables_find_the_loaded_model(machine: Machine) -> None:
    tune(machine.add("toy"), Setting("Q8_0"))
    model = load("toy", context_length=512)
    assert SessionModels().loaded("toy") is model
    assert model_of("toy") is model


def test_answers_of_the_tuned_file_are_not_those_of_the_models_own(machine: Machine) -> None:
    path = machine.add("toy")
    request = GenerateRequest(messages=(Message("user", "hi"),))
    before = key(file_hash=model_hash(SessionModels().path("toy")), request=request, version="1")
    place = tune(path, Setting("Q8_0"))
    after = key(file_hash=model_hash(SessionModels().path("toy")), request=request, version="1")
    assert before != after
    forget(place)
    assert SessionModels().path("toy") == os.path.realpath(path)


def test_process_of_its_own_is_started_with_the_tuned_options(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tune(machine.add("toy"), Setting("Q8_0", threads=1, max_batch=128))
    asked: list[tuple[Any, ...]] = []

    def attach(path: str, name: str, options: Any, config: Any, *, usual: Any) -> None:
        asked.append((path, name, dict(options), dict(usual)))
        raise EngineError("no process")

    monkeypatch.setattr(loading, "attach", attach)
    with pytest.raises(EngineError):
        load("toy", engine="server", threads=2)
    (found,) = asked
    assert found == (str(place.weights("Q8_0")), "toy", found[2], {"threads": 2, "max_batch": 128})
    assert found[2]["threads"] == 2
    assert "max_batch" not in found[2], "a process that has the file with another one would do"
