"""What loading a model uses of its tuning."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.session.tuning import machine
from nbllm.session.tuning.kept import forget, tuned
from nbllm.session.tuning.machine import this_machine
from nbllm.session.tuning.measurement import Measurement, Speeds
from nbllm.session.tuning.record import Record, written
from nbllm.session.tuning.setting import Setting
from nbllm.store.tunings import Place, tunings_folder

CHOSEN = Setting("Q8_0", flash_attention=True)
RECORD = Record("toy", "here", False, (Measurement(CHOSEN, (Speeds(1, 1, 1),), 0.01, 4),), CHOSEN)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(models_dir=tmp_path / "models")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "toy.gguf"
    path.write_bytes(b"GGUF and more")
    return path


def keep(model: Path, config: Config, record: Record = RECORD, on: str | None = None) -> Place:
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    place = Place.of(tunings_folder(config), model.stat().st_size, digest, on or this_machine().key)
    place.folder.mkdir(parents=True, exist_ok=True)
    place.path.write_bytes(written(record))
    place.weights("Q8_0").write_bytes(b"GGUF")
    return place


def test_tuned_model_is_loaded_from_the_file_that_was_chosen(model: Path, config: Config) -> None:
    place = keep(model, config)
    found = tuned(model, config)
    assert found is not None
    assert (found.source, found.path, dict(found.options)) == (
        model,
        place.weights("Q8_0"),
        {"flash_attention": True},
    )
    assert found.note == "tuned for this machine: Q8_0, flash_attention=True"


def test_option_alone_is_used_with_the_models_own_file(model: Path, config: Config) -> None:
    setting = Setting(threads=1)
    keep(model, config, replace(RECORD, chosen=setting, measured=(Measurement(setting, size_bytes=13),)))
    found = tuned(model, config)
    assert found is not None
    assert (found.path, dict(found.options)) == (model, {"threads": 1})


def test_model_that_was_never_tuned_is_not_even_hashed(
    model: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(model, config)
    other = model.with_name("other.gguf")
    other.write_bytes(b"GGUF of another size")
    monkeypatch.setattr("nbllm.store.hashes.model_hash", lambda _: pytest.fail("it was hashed"))
    assert tuned(other, config) is None


def test_other_model_of_the_same_size_is_not_taken_for_it(model: Path, config: Config) -> None:
    keep(model, config)
    other = model.with_name("other.gguf")
    other.write_bytes(model.read_bytes()[::-1])
    assert tuned(other, config) is None


def test_tuning_of_another_machine_says_nothing_here(
    model: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(model, config)
    monkeypatch.setattr(machine, "usable_cores", lambda: 1000)
    assert tuned(model, config) is None


@pytest.mark.parametrize(
    "record",
    [replace(RECORD, chosen=None), replace(RECORD, chosen=Setting()), replace(RECORD, measured=())],
    ids=["open", "as it is", "not measured"],
)
def test_record_without_a_usable_choice_changes_nothing(model: Path, config: Config, record: Record) -> None:
    keep(model, config, record)
    assert tuned(model, config) is None


@pytest.mark.parametrize("data", [None, b"cut"], ids=["gone", "another size"])
def test_weights_that_are_not_whole_are_not_loaded(
    model: Path, config: Config, data: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    weights = keep(model, config).weights("Q8_0")
    weights.unlink()
    if data is not None:
        weights.write_bytes(data)
    assert tuned(model, config) is None
    assert "run %llm tune again" in caplog.text


def test_damaged_record_changes_nothing(model: Path, config: Config) -> None:
    keep(model, config).path.write_bytes(b"\xff")
    assert tuned(model, config) is None


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, {"flash_attention": True, "threads": 1}),
        ({"threads": None}, {"flash_attention": True, "threads": 1}),
        ({"threads": 2}, {"flash_attention": True}),
        ({"kv_type": "f16"}, {"threads": 1}),
    ],
    ids=["none", "not said", "threads", "attention"],
)
def test_options_that_are_given_win(
    model: Path, config: Config, given: dict[str, object], left: dict[str, object]
) -> None:
    setting = Setting(threads=1, flash_attention=True)
    keep(model, config, replace(RECORD, chosen=setting, measured=(Measurement(setting),)))
    found = tuned(model, config)
    assert found is not None
    assert found.options_beside(given) == left


def test_forgetting_removes_the_record_and_the_file(model: Path, config: Config) -> None:
    place = keep(model, config)
    unfinished = place.weights("Q4_0").with_suffix(".gguf.part")
    unfinished.touch()
    assert set(forget(place)) == {place.path, place.weights("Q8_0"), unfinished}
    assert tuned(model, config) is None
    assert forget(place) == []


def test_file_that_another_machine_uses_stays(model: Path, config: Config) -> None:
    keep(model, config, on="00000000")
    place = keep(model, config)
    assert forget(place) == [place.path]
    assert place.weights("Q8_0").exists()
