from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nbllm.config.stores import FOREIGN_STORES, store_folders  # before conftest points it to nothing

VARIABLES = ("OLLAMA_MODELS", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "LOCALAPPDATA")
SERVICE = Path("/usr/share/ollama/.ollama/models")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*VARIABLES, "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("store", "folders"),
    [
        ("ollama", [".ollama/models", SERVICE]),
        ("huggingface", [".cache/huggingface/hub"]),
        ("lmstudio", [".lmstudio/models", ".cache/lm-studio/models"]),
    ],
)
def test_store_folders_usual(store: str, folders: list[str], home: Path) -> None:
    assert store_folders(store) == tuple(home / folder for folder in folders)


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("linux", ".local/share/nomic.ai/GPT4All"),
        ("darwin", "Library/Application Support/nomic.ai/GPT4All"),
        ("win32", "AppData/Local/nomic.ai/GPT4All"),
    ],
)
def test_store_folders_of_gpt4all(platform: str, folder: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert store_folders("gpt4all") == (home / folder, home / ".cache/gpt4all")


@pytest.mark.parametrize(
    ("variable", "store", "expected"),
    [
        ("OLLAMA_MODELS", "ollama", "set"),
        ("HF_HUB_CACHE", "huggingface", "set"),
        ("HUGGINGFACE_HUB_CACHE", "huggingface", "set"),
        ("HF_HOME", "huggingface", "set/hub"),
        ("XDG_CACHE_HOME", "huggingface", "set/huggingface/hub"),
    ],
)
def test_store_folders_as_the_programs_are_told(
    variable: str, store: str, expected: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(home / "set"))
    assert store_folders(store)[0] == home / expected


def test_store_folders_the_narrowest_variable_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(variable, str(home / variable))
    assert store_folders("huggingface") == (home / "HF_HUB_CACHE",)


@pytest.mark.parametrize("value", ["", "models", "./models"])
def test_store_folders_relative_variable_counts_for_nothing(
    value: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", value)
    assert store_folders("ollama")[0] == home / ".ollama/models"


def test_store_folders_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", nobody)
    assert [store_folders(store) for store in FOREIGN_STORES] == [()] * 4
