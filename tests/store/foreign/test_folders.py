"""LM Studio's folder and GPT4All's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbllm.store.foreign.gpt4all import gpt4all_models
from nbllm.store.foreign.lmstudio import lmstudio_models
from nbllm.store.foreign.look import Entry, Look
from tests.store import gguf_writer as g
from tests.store.foreign.made import TINY

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX")


def test_lmstudio_models_by_publisher_repository_and_file(tmp_path: Path) -> None:
    path = g.write(tmp_path / "publisher/repo-GGUF/Model-Q4_K_M.gguf", TINY)
    g.write(tmp_path / "publisher/repo-GGUF/mmproj-F16.gguf", TINY)
    g.write(tmp_path / "publisher/repo-GGUF/.part.gguf", TINY)
    g.write(tmp_path / "publisher/mlx/model.safetensors", TINY)

    assert lmstudio_models(Look(tmp_path)) == {"publisher/repo-GGUF/Model-Q4_K_M": Entry(path)}


def test_gpt4all_models_by_their_stems(tmp_path: Path) -> None:
    path = g.write(tmp_path / "Llama-3.2-1B-Instruct-Q4_0.gguf", TINY)
    g.write(tmp_path / "incomplete-Other.gguf", TINY)
    g.write(tmp_path / "localdocs_v3.db", TINY)
    g.write(tmp_path / "below/other.gguf", TINY)

    assert gpt4all_models(Look(tmp_path)) == {"Llama-3.2-1B-Instruct-Q4_0": Entry(path)}


@posix
def test_links_stay_inside(tmp_path: Path) -> None:
    outside = g.write(tmp_path / "outside/a.gguf", TINY)
    inside = g.write(tmp_path / "store/p/r/a.gguf", TINY)
    (tmp_path / "store/p/r/in.gguf").symlink_to(inside)
    (tmp_path / "store/p/r/out.gguf").symlink_to(outside)
    (tmp_path / "store/p/r/self.gguf").symlink_to("self.gguf")
    (tmp_path / "store/p/folder").symlink_to(outside.parent)
    (tmp_path / "store/p/again").symlink_to("..")

    problems = {name: entry.problem for name, entry in lmstudio_models(Look(tmp_path / "store")).items()}

    assert (problems.pop("p/r/a"), problems.pop("p/r/in")) == ("", "")
    assert "leads out of its store" in problems.pop("p/r/out")
    assert problems == {"p/r/self": "is a link that leads nowhere"}


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="nothing is closed to root")
def test_closed_folder_is_not_there(tmp_path: Path) -> None:
    g.write(tmp_path / "closed/r/a.gguf", TINY)
    g.write(tmp_path / "open/r/a.gguf", TINY)
    (tmp_path / "closed").chmod(0)

    try:
        assert list(lmstudio_models(Look(tmp_path))) == ["open/r/a"]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_no_folder(tmp_path: Path) -> None:
    g.write(tmp_path / "file", b"")

    for folder in (tmp_path / "none", tmp_path / "file"):
        assert lmstudio_models(Look(folder)) == {}
