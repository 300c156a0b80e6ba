from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.config import Config, Endpoint
from nbllm.core.presets import Preset
from nbllm.errors import ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.session.named import named
from nbllm.session.tunable import tunable
from nbllm.session.tuning.machine import this_machine
from nbllm.session.tuning.measurement import Measurement
from nbllm.session.tuning.record import Record, written
from nbllm.session.tuning.setting import Setting
from nbllm.store import model_hash
from nbllm.store.presets import shelf
from nbllm.store.tunings import Place, tunings_folder
from tests.store.gguf_writer import tiny_model, write


@pytest.fixture
def config(tmp_path: Path) -> Config:
    endpoint = Endpoint(base_url="http://localhost:1/v1", model="far")
    return Config(models_dir=tmp_path / "models", endpoints={"far": endpoint})


@pytest.fixture
def toy(config: Config) -> Path:
    return write(config.models_dir / "toy.gguf", tiny_model())


def keep(toy: Path, config: Config) -> Path:
    place = Place.of(tunings_folder(config), toy.stat().st_size, model_hash(toy), this_machine().key)
    setting = Setting("Q8_0", threads=1)
    place.folder.mkdir()
    place.path.write_bytes(written(Record("toy", "here", False, (Measurement(setting, size_bytes=4),), setting)))
    place.weights("Q8_0").write_bytes(b"GGUF")
    return place.weights("Q8_0")


def test_name_means_the_tuned_file_and_tuning_the_models_own(toy: Path, config: Config) -> None:
    weights = keep(toy, config)
    found = named("toy", config)
    assert (found.path, found.base) == (str(weights), "toy")
    assert found.tuned is not None
    assert found.tuned.note == "tuned for this machine: Q8_0, threads=1"
    assert tunable("toy", config).path == str(toy)


def test_preset_uses_its_tuned_base(toy: Path, config: Config) -> None:
    shelf.save(Preset(name="mario", base="toy", system="You are Mario."), config)
    weights = keep(toy, config)
    assert named("mario", config).path == str(weights)
    assert (tunable("mario", config).path, tunable("mario", config).name) == (str(toy), "toy")


def test_model_that_was_not_tuned_is_itself(toy: Path, config: Config) -> None:
    found = named("toy", config)
    assert (found.path, found.tuned) == (str(toy), None)


@pytest.mark.parametrize(
    ("name", "error", "problem"),
    [
        ("far", ParameterError, "on another server"),
        ("nothing", ModelNotFoundError, "nothing"),
        ("cut", ModelLoadError, "cut"),
    ],
)
def test_what_cannot_be_tuned_says_why(
    toy: Path, config: Config, name: str, error: type[Exception], problem: str
) -> None:
    write(toy.with_name("cut.gguf"), toy.read_bytes()[:40])
    with pytest.raises(error, match=problem):
        tunable(name, config)
