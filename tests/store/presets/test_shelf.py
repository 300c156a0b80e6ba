from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.core import Adapter, Preset
from nbllm.errors import InvalidRequestError, ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.store.presets import shelf
from nbllm.store.presets.files import FOLDER
from tests.store.presets.conftest import Put

MARIO = Preset(name="mario", base="tiny", system="You are Mario.\n")


def test_find_what_was_saved(config: Config, tiny: Path) -> None:
    assert shelf.find("mario", config) is None

    shelf.save(replace(MARIO, name="Mario:latest"), config)

    for name in ("Mario", "mario", "MARIO:latest"):
        assert shelf.find(name, config) == replace(MARIO, name="Mario")
    assert shelf.find("mario:7b", config) is None
    assert shelf.presets(config) == {"Mario": replace(MARIO, name="Mario")}
    assert shelf.file_of("mario", config) == config.models_dir / FOLDER / "Mario.toml"


@pytest.mark.parametrize("name", ["", "../mario", "..%2Fmario", "/etc/passwd", "a\0b", "\ud800", "x" * 5000])
def test_find_takes_any_text(name: str, config: Config, put: Put) -> None:
    put("mario.toml", 'from = "tiny"')

    assert shelf.find(name, config) is None
    assert shelf.file_of(name, config) is None


def test_save_replaces_in_any_case(config: Config, tiny: Path) -> None:
    shelf.save(MARIO, config)
    shelf.save(replace(MARIO, name="MARIO", system="Other"), config)

    assert shelf.presets(config) == {"mario": replace(MARIO, system="Other")}
    assert os.listdir(config.models_dir / FOLDER) == ["mario.toml"]


def test_save_puts_a_damaged_one_right(config: Config, tiny: Path, put: Put) -> None:
    put("mario.toml", "\0")
    with pytest.raises(ModelLoadError, match="the preset 'Mario' cannot be loaded: the preset is not TOML"):
        shelf.find("Mario", config)
    assert list(shelf.damaged(config)) == ["mario"]

    shelf.save(MARIO, config)

    assert shelf.find("Mario", config) == MARIO
    assert shelf.damaged(config) == {}


@pytest.mark.parametrize("name", ["tiny", "Tiny.gguf", "TINY:latest", "smollm2", "default", "alias", "far"])
def test_save_refuses_the_names_of_others(name: str, config: Config, tiny: Path) -> None:
    from nbllm.config.endpoints import Endpoint

    far = Endpoint(base_url="http://127.0.0.1:1/v1", model="m")
    config = replace(config, aliases={"alias": "tiny"}, endpoints={"far": far})

    with pytest.raises(ParameterError, match=r"^name: .* choose another"):
        shelf.save(replace(MARIO, name=name), config)

    assert not (config.models_dir / FOLDER).exists()


@pytest.mark.parametrize("name", ["hf:org/repo", "ollama:x", "LMStudio:x", "../x", "", "a b"])
def test_save_refuses_names(name: str, config: Config, tiny: Path) -> None:
    with pytest.raises(ParameterError, match=r"^name: "):
        shelf.save(replace(MARIO, name=name), config)


@pytest.mark.parametrize(
    "changes",
    [{"base": "./tiny.gguf"}, {"base": "~/a"}, {"adapters": (Adapter("a.gguf"),)}],
    ids=["base", "home", "adapter"],
)
def test_save_refuses_relative_paths(changes: dict[str, object], config: Config, tiny: Path) -> None:
    with pytest.raises(ParameterError, match="write the whole"):
        shelf.save(replace(MARIO, **changes), config)  # type: ignore[arg-type]


def test_save_refuses_what_could_not_be_read_again(config: Config, tiny: Path) -> None:
    for system in ("\ud800", "\n" * 999_999):
        with pytest.raises(InvalidRequestError, match=r"surrogate|characters"):
            shelf.save(replace(MARIO, system=system), config)

    assert shelf.presets(config) == {}


def test_save_where_nothing_can_be_written(config: Config, tiny: Path) -> None:
    (config.models_dir / FOLDER).write_text("in the way")

    with pytest.raises(InvalidRequestError, match="the preset mario cannot be written to"):
        shelf.save(MARIO, config)


def test_save_by_several_at_once_is_never_half_done(config: Config, tiny: Path) -> None:
    saved = [replace(MARIO, system=letter * 20_000) for letter in "abcd"]
    shelf.save(saved[0], config)
    seen: list[Preset | None] = []

    def work(preset: Preset) -> None:
        for _ in range(5):
            shelf.save(preset, config)
            seen.append(shelf.find("mario", config))

    threads = [threading.Thread(target=work, args=(preset,)) for preset in saved]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 20
    assert all(preset in saved for preset in seen)
    assert os.listdir(config.models_dir / FOLDER) == ["mario.toml"]


def test_remove(config: Config, tiny: Path, put: Put) -> None:
    shelf.save(MARIO, config)
    put("bad.toml", "x")

    shelf.remove("Mario:latest", config)
    assert list(shelf.entries(config)) == ["bad"]
    with pytest.raises(ModelNotFoundError, match=r"^no preset 'mario'; there is bad$"):
        shelf.remove("mario", config)

    shelf.remove("bad", config)
    with pytest.raises(ModelNotFoundError, match=r"^no preset 'tiny', nor any other$"):
        shelf.remove("tiny", config)
    assert tiny.exists()
