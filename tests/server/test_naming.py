"""What the names of models mean to clients, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.core import Preset
from nbllm.errors import ModelLoadError, ModelNotFoundError
from nbllm.server import naming
from nbllm.server.naming import ModelNames
from nbllm.store.names import named_models
from nbllm.store.presets import shelf
from tests.store.gguf_writer import tiny_model, write


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for name in ("plain", "tagged:latest", "both", "both:latest"):
        write(tmp_path / f"{name}.gguf", tiny_model())
    write(tmp_path / "damaged.gguf", b"no model")
    aliases = {"mine": "plain", "yours:latest": "both", "dangling": "nowhere"}
    return Config(models_dir=tmp_path, foreign_stores=(), default_model="plain", aliases=aliases)


@pytest.fixture
def num_scans(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """One for each look at the whole machine."""
    scans: list[Config] = []

    def counted(config: Config) -> dict[str, Path]:
        scans.append(config)
        return named_models(config)

    monkeypatch.setattr(naming, "named_models", counted)
    return scans


@pytest.mark.parametrize(
    ("name", "also", "meant"),
    [
        ("plain", ("plain", "plain:latest"), "plain"),
        ("plain:latest", ("plain", "plain:latest"), "plain"),
        ("tagged", ("tagged", "tagged:latest"), "tagged:latest"),
        ("both", ("both", "both:latest"), "both"),
        ("both:latest", ("both", "both:latest"), "both:latest"),
        ("mine:latest", ("mine", "mine:latest"), "plain"),
        ("yours", ("yours", "yours:latest"), "both"),
        ("far:latest", ("far", "far:latest"), "far"),
        ("default:latest", ("default", "default:latest"), "plain"),
        ("PLAIN:latest", ("PLAIN", "PLAIN:latest"), "plain"),
        ("plain:latest", (), "plain"),
    ],
)
def test_spelling_that_there_is_is_meant(
    config: Config, num_scans: list[Config], name: str, also: Sequence[str], meant: str
) -> None:
    names = ModelNames(lambda: config, ("far",))
    assert names.target(name, also=also).name == meant
    assert len(num_scans) == 1


def test_other_server_is_found_without_a_look_at_the_files(config: Config, num_scans: list[Config]) -> None:
    assert ModelNames(lambda: config, ("far",)).target("far").path is None
    assert num_scans == []


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("nothing:latest", ModelNotFoundError, "no model 'nothing'"),
        ("damaged:latest", ModelLoadError, "'damaged' cannot be loaded"),
        ("*", ModelNotFoundError, r"'\*'"),
    ],
)
def test_no_spelling_that_there_is(config: Config, name: str, error: type[Exception], said: str) -> None:
    names = ModelNames(lambda: config, ())
    bare = name.removesuffix(":latest")
    with pytest.raises(error, match=said):
        names.target(name, also=(bare, f"{bare}:latest"))


@pytest.mark.parametrize("also", [(), ("unheard", "unheard:latest")], ids=["one spelling", "several"])
def test_any_other_name_is_looked_up_once(config: Config, num_scans: list[Config], also: Sequence[str]) -> None:
    catching = replace(config, aliases={"*": "both"})
    names = ModelNames(lambda: catching, ())
    assert names.target("unheard:latest", also=also).name == "both"
    assert len(num_scans) == 1
    with pytest.raises(ModelNotFoundError):
        names.target("unheard:latest", also=also, by_any=False)


def test_list_looks_once_whatever_the_aliases(config: Config, num_scans: list[Config]) -> None:
    listed = ModelNames(lambda: config, ("far",)).listed()
    assert {name: target.name for name, target in listed.items()} == {
        **{name: name for name in ("both", "both:latest", "far", "plain", "tagged:latest")},
        **({"mine": "plain", "yours:latest": "both"}),
        **{name: name for name in listed if name.startswith("smollm")},
    }
    assert len(num_scans) == 1


# ---- presets


@pytest.fixture
def names(config: Config) -> ModelNames:
    shelf.save(Preset(name="mario", base="plain", system="Be Mario."), config)
    shelf.save(Preset(name="little", base="mario", context_length=64), config)
    shelf.save(Preset(name="tag:7b", base="tagged:latest"), config)
    return ModelNames(lambda: config, ("far",))


@pytest.mark.parametrize("name", ["mario", "mario:latest", "MARIO"])
@pytest.mark.parametrize("is_ollamas", [False, True], ids=["one spelling", "several"])
def test_preset_is_its_bases_file_with_what_it_says(names: ModelNames, name: str, is_ollamas: bool) -> None:
    bare = name.removesuffix(":latest")
    target = names.target(name, also=(bare, f"{bare}:latest") if is_ollamas else ())
    plain = names.target("plain")
    assert (target.name, target.base, target.path, target.stamp) == ("mario", "plain", plain.path, plain.stamp)
    assert target.preset is not None
    assert target.preset.system == "Be Mario."
    assert target.modified_s >= plain.modified_s > 0
    assert (plain.base, plain.preset) == ("plain", None)


def test_preset_of_a_preset_has_all_of_both(names: ModelNames) -> None:
    preset = names.target("little").preset
    assert preset is not None
    assert (preset.system, preset.context_length) == ("Be Mario.", 64)


def test_preset_goes_before_the_name_that_means_any_model(config: Config, names: ModelNames) -> None:
    catching = ModelNames(lambda: replace(config, aliases={"*": "both"}), ())
    assert catching.target("mario").name == "mario"
    assert catching.target("luigi").name == "both"


def test_list_has_presets_and_looks_once(names: ModelNames, num_scans: list[Config]) -> None:
    listed = names.listed()
    assert {"mario", "little", "tag:7b"} <= set(listed)
    assert listed["tag:7b"].base == "tagged:latest"
    assert len(num_scans) == 1


def test_preset_of_what_has_gone_is_not_listed_and_says_no_folder(config: Config, names: ModelNames) -> None:
    (config.models_dir / "plain.gguf").unlink()
    assert not {"mario", "little"} & set(names.listed())
    with pytest.raises(
        ModelNotFoundError, match="'mario' is made from a model or an adapter that is not there"
    ) as error:
        names.target("mario")
    assert str(config.models_dir) not in str(error.value)


def test_damaged_preset_says_so_without_its_folder(config: Config, names: ModelNames) -> None:
    write(config.models_dir / ".presets" / "odd.toml", b"base = [")
    assert "odd" not in names.listed()
    with pytest.raises(ModelLoadError, match="'odd' cannot be loaded") as error:
        names.target("odd")
    assert str(config.models_dir) not in str(error.value)


def test_preset_of_an_alias_of_the_settings(config: Config, names: ModelNames) -> None:
    shelf.save(Preset(name="lent", base="mine"), config)
    assert names.target("lent").base == "plain"
    changed = ModelNames(lambda: replace(config, aliases={"mine": "both"}), ())
    assert changed.target("lent").base == "both"
