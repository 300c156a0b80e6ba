"""What the names of models mean to clients, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.errors import ModelLoadError, ModelNotFoundError
from nbllm.server import naming
from nbllm.server.naming import ModelNames
from nbllm.store.names import named_models
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
