"""What a name means: a file, and a preset if it is one's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import load_config
from nbllm.core import SamplingParams
from nbllm.core.presets import Preset
from nbllm.errors import ModelNotFoundError
from nbllm.session.model import Model
from nbllm.session.named import Named, named
from nbllm.store.presets import shelf
from nbllm.testing import ScriptedEngine
from nbllm.testing.vocabulary import TOY_MODEL
from tests.store.gguf_writer import tiny_model

MARIO = Preset(name="mario", base="toy", system="You are Mario.", context_length=512, threads=2)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of a models folder, and settings with an alias of a preset and a default that is one."""
    settings = tmp_path / "config.toml"
    settings.write_text('default_model = "plumber"\n[aliases]\nplumber = "mario"\nbroken = "nothing"\n')
    monkeypatch.setenv("NBLLM_CONFIG", str(settings))
    folder = load_config().models_dir
    folder.mkdir()
    path = folder / "toy.gguf"
    path.write_bytes(b"GGUF")
    shelf.save(MARIO, load_config())
    return path


@pytest.mark.parametrize("name", ["mario", "Mario", "mario:latest", "plumber", None])
def test_preset_is_found_by_its_names(toy: Path, name: str | None) -> None:
    found = named(name, load_config())
    assert (found.name, found.path, found.base) == ("mario", str(toy), "toy")
    assert found.preset == found.saved == MARIO
    assert found.load_options == {"context_length": 512, "threads": 2}


def test_context_is_no_longer_than_the_model_has_learnt(toy: Path) -> None:
    toy.write_bytes(tiny_model())
    shelf.save(replace(MARIO, context_length=131072), load_config())
    assert named("mario", load_config()).load_options == {"context_length": 2048, "threads": 2}


def test_preset_that_may_have_been_meant_is_named(toy: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model 'maro'; .*there is a preset mario"):
        named("maro", load_config())


def test_model_that_is_no_preset_has_none(toy: Path) -> None:
    found = named("toy", load_config())
    assert (found.name, found.path, found.base, found.preset) == ("toy", str(toy), "toy", None)
    assert found.load_options == {}
    assert named(toy, load_config()).preset is None


def test_preset_of_a_preset_has_what_both_say(toy: Path) -> None:
    shelf.save(Preset(name="calm", base="mario", sampling=SamplingParams(temperature=0.0)), load_config())
    found = named("calm", load_config())
    assert (found.name, found.path, found.base) == ("calm", str(toy), "toy")
    assert found.preset is not None
    assert (found.preset.system, found.preset.sampling.temperature) == (MARIO.system, 0.0)
    assert found.load_options == {"context_length": 512, "threads": 2}


@pytest.mark.usefixtures("toy")
def test_preset_whose_base_is_gone_says_what_it_is_made_of() -> None:
    shelf.save(replace(MARIO, name="orphan", base="gone"), load_config())
    with pytest.raises(ModelNotFoundError, match="orphan is made of gone"):
        named("orphan", load_config())


def _loaded(path: Path, preset: Preset | None) -> Model:
    return Model(ScriptedEngine(replace(TOY_MODEL, path=str(path))), preset=preset)


@pytest.mark.parametrize(
    ("change", "is_it"),
    [
        pytest.param(lambda preset: preset, True, id="same"),
        pytest.param(lambda preset: None, False, id="base"),
        pytest.param(lambda preset: replace(preset, name="luigi"), False, id="another preset"),
        pytest.param(lambda preset: replace(preset, system="You are sad."), False, id="changed since"),
    ],
)
def test_loaded_model_is_it_with_the_same_preset_only(
    toy: Path, change: Callable[[Preset], Preset | None], is_it: bool
) -> None:
    model = _loaded(toy, change(MARIO))
    assert named("mario", load_config()).among([model]) is (model if is_it else None)


def test_last_loaded_model_is_it(toy: Path) -> None:
    models = [_loaded(toy, None), _loaded(toy, None), _loaded(toy, MARIO)]
    assert named("toy", load_config()).among(models) is models[1]


@pytest.mark.parametrize(
    ("newer", "is_outdated"),
    [
        pytest.param({"saved": MARIO}, False, id="unchanged"),
        pytest.param({"saved": replace(MARIO, system=None)}, True, id="changed"),
        pytest.param({"saved": None}, True, id="no preset any more"),
        pytest.param({"saved": None, "name": "toy"}, False, id="another model"),
        pytest.param({"saved": MARIO, "preset": replace(MARIO, adapters=())}, False, id="called otherwise"),
    ],
)
def test_preset_is_outdated_by_its_file(newer: dict[str, object], is_outdated: bool) -> None:
    old = Named("mario", "/toy.gguf", "toy", MARIO, MARIO)
    assert old.is_outdated_by(replace(old, **newer)) is is_outdated  # type: ignore[arg-type]
