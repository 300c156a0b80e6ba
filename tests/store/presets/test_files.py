from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.store.presets import files
from nbllm.store.presets.files import FOLDER, entries
from nbllm.store.presets.text import MAX_CHARACTERS
from tests.store.presets.conftest import Put

GOOD = 'from = "tiny"'


def test_entries_without_a_folder(config: Config) -> None:
    assert entries(config) == {}


def test_entries_by_name(config: Config, put: Put) -> None:
    for name in ("b.toml", "my%2Fa%3A7b.toml", "gemma:1b.toml", ".hidden.toml", "notes.txt", ".x.part"):
        put(name, GOOD)

    found = entries(config)

    assert list(found) == ["b", "gemma:1b", "my/a:7b"]
    assert all(entry.preset is not None and entry.preset.base == "tiny" for entry in found.values())
    assert [entry.preset.name for entry in found.values() if entry.preset] == list(found)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "there is no from"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"from = 3", "from: must be a text"),
        (b"from = ", "the preset is not TOML"),
        (b"[" * 50_000, "too many brackets|not TOML"),
        (b"#" * (MAX_CHARACTERS + 1), "has 1,000,001 characters"),
        (b"#" * 4_000_001, "has more than 4,000,000 bytes"),
    ],
    ids=["empty", "utf-8", "type", "toml", "nested", "long", "huge"],
)
def test_entries_damaged(data: bytes, problem: str, config: Config, put: Put) -> None:
    put("bad.toml", data)
    put("good.toml", GOOD)

    found = entries(config)

    assert found["bad"].preset is None
    assert re.search(problem, found["bad"].problem)
    assert "\n" not in found["bad"].problem
    assert found["good"].preset is not None


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
def test_entries_that_are_no_files(config: Config, put: Put) -> None:
    folder = put("good.toml", GOOD).parent
    os.mkfifo(folder / "fifo.toml")
    (folder / "folder.toml").mkdir()
    (folder / "loop.toml").symlink_to("loop.toml")
    (folder / "gone.toml").symlink_to("nowhere")
    (folder / "device.toml").symlink_to("/dev/zero")

    problems = {name: entry.problem for name, entry in entries(config).items()}

    assert {name: problem.partition(":")[0] for name, problem in problems.items()} == {
        "device": "is not a file",
        "fifo": "is not a file",
        "folder": "cannot be read",
        "gone": "cannot be read",
        "good": "",
        "loop": "cannot be read",
    }


def test_entries_of_files_with_impossible_names(config: Config, put: Put) -> None:
    put("my model.toml", GOOD)
    put("..%2Fout.toml", GOOD)

    found = entries(config)

    assert list(found) == ["my model"]
    assert "write letters, digits" in found["my model"].problem


def test_entries_that_mean_the_same(config: Config, put: Put) -> None:
    for name in ("Mario.toml", "mario.toml", "mario:latest.toml"):
        put(name, GOOD)

    found = entries(config)

    assert {name: entry.preset is not None for name, entry in found.items()} == {
        "Mario": True,
        "mario.toml": False,
        "mario:latest.toml": False,
    }
    assert found["mario.toml"].problem == "means the same model as Mario.toml; remove one of them"


def test_entries_parse_an_unchanged_file_once(config: Config, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [put("a.toml", GOOD), put("bad.toml", "x")]
    for path in paths:
        os.utime(path, ns=(1, 1))
    first = entries(config)
    read: list[str] = []
    parsed = files._parsed

    def counted(path: Path) -> object:
        read.append(path.name)
        return parsed(path)

    monkeypatch.setattr(files, "_parsed", counted)
    assert entries(config) == first
    assert read == []

    put("a.toml", 'from = "other"')
    os.utime(paths[0], ns=(1, 1))  # the size is enough
    changed = entries(config)["a"].preset
    assert changed is not None
    assert changed.base == "other"
    assert read == ["a.toml"]


def test_entries_see_a_change_of_the_same_size_at_once(config: Config, put: Put) -> None:
    for base in ("aa", "bb", "cc"):
        path = put("a.toml", f'from = "{base}"')
        os.utime(path, ns=(path.stat().st_mtime_ns,) * 2)
        preset = entries(config)["a"].preset
        assert preset is not None
        assert preset.base == base


def test_entries_relative_paths_start_from_the_folder(config: Config, put: Put) -> None:
    put("a.toml", 'from = "../tiny.gguf"')

    preset = entries(config)["a"].preset

    assert preset is not None
    assert preset.base == str(config.models_dir / FOLDER / "../tiny.gguf")
