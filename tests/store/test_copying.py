from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.config.endpoints import Endpoint
from nbllm.core import SamplingParams
from nbllm.core.presets import Preset
from nbllm.errors import InvalidRequestError, ModelNotFoundError, NbllmError
from nbllm.store.copying import copy
from nbllm.store.presets import shelf
from tests.store.gguf_writer import tiny_model, write


@pytest.fixture
def model(models_dir: Path) -> Path:
    return write(models_dir / "org/repo/m.gguf", tiny_model())


def test_model_gets_a_preset_and_no_bytes_are_copied(model: Path, models_dir: Path, config: Config) -> None:
    made = copy("org/repo/m", "mine:latest", config)
    assert (made.base, made.system, made.sampling) == ("org/repo/m", None, SamplingParams())
    kept = shelf.find("mine", config)
    assert kept is not None
    assert shelf.flattened(kept, config).path == model
    assert [path.stat().st_size < 1000 for path in models_dir.rglob("*.toml")] == [True]
    assert len(list(models_dir.rglob("*.gguf"))) == 1


def test_name_of_the_base_is_that_of_the_list(model: Path, config: Config) -> None:
    assert copy("ORG/repo/m.gguf", "mine", config).base == "org/repo/m"
    assert copy("hf:org/repo", "other", config).base == "org/repo/m"


@pytest.mark.usefixtures("model")
def test_preset_is_copied_as_it_is(config: Config) -> None:
    mario = Preset(name="mario", base="org/repo/m", system="You are Mario.", sampling=SamplingParams(temperature=0.2))
    shelf.save(mario, config)
    assert copy("mario", "luigi", config) == replace(mario, name="luigi")
    shelf.remove("mario", config)
    kept = shelf.find("luigi", config)
    assert kept is not None
    assert kept.system == "You are Mario."


@pytest.mark.usefixtures("model")
def test_alias_and_default_may_mean_a_file_anywhere(config: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "far/away.gguf", tiny_model())
    config = replace(config, default_model=str(path), aliases={"chat": "org/repo/m"})
    assert copy("chat", "one", config).base == "org/repo/m"
    assert copy("default", "two", config).base == str(path)


@pytest.mark.usefixtures("model")
def test_other_preset_of_the_name_goes_only_where_it_may(config: Config) -> None:
    shelf.save(Preset(name="mine", base="org/repo/m", system="Be brief."), config)
    with pytest.raises(InvalidRequestError, match="another preset mine: --force"):
        copy("org/repo/m", "mine", config, may_replace=False)
    assert copy("org/repo/m", "mine", config).system is None
    copy("org/repo/m", "mine", config, may_replace=False)  # the same again is no loss


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("source", "destination", "says"),
    [
        pytest.param("org/repo/m", "ORG/repo/m:latest", "is the name that it has", id="itself"),
        pytest.param("far", "near", "on another server", id="endpoint"),
        pytest.param("nothing", "mine", "no model", id="unknown"),
        pytest.param("../m", "mine", "no model", id="leaves the folder"),
        pytest.param("org/repo/m", "../mine", "name", id="name that leaves the folder"),
        pytest.param("org/repo/m", "", "name", id="no name"),
        pytest.param("org/repo/m", "other", "other", id="name of a model"),
        pytest.param("", "mine", "name", id="no source"),
    ],
)
def test_what_cannot_be_copied_is_a_line(
    models_dir: Path, config: Config, source: str, destination: str, says: str
) -> None:
    write(models_dir / "other.gguf", tiny_model())
    config = replace(config, endpoints={"far": Endpoint(base_url="http://127.0.0.1:9/v1", model="big")})
    with pytest.raises(NbllmError) as caught:
        copy(source, destination, config)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(models_dir.rglob("*.toml")) == []


def test_path_is_no_name_to_a_client(config: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "private.gguf", tiny_model())
    with pytest.raises(ModelNotFoundError):
        copy(str(path), "mine", config)
