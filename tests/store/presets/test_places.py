from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.errors import InvalidRequestError
from nbllm.store.presets import places

DIGEST = "sha256:" + "0f" * 32


@pytest.mark.parametrize("text", ["smollm2", "folder/file.gguf", "hf:org/repo:Q4_K_M", DIGEST])
@pytest.mark.parametrize("folder", [None, Path("/nowhere")], ids=["from-afar", "from-a-file"])
def test_base_by_name(text: str, folder: Path | None) -> None:
    assert places.base(f" {text} ", folder) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("./a.gguf", "/here/a.gguf"), ("/a b.gguf", "/a b.gguf"), ("../a", "/here/../a")],
    ids=["relative", "absolute", "above"],
)
def test_base_by_path(text: str, expected: str) -> None:
    assert places.base(text, Path("/here")) == expected


def test_base_by_path_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/mine")

    assert places.base("~/a.gguf", Path("/here")) == "/home/of/mine/a.gguf"
    with pytest.raises(InvalidRequestError, match="home folder of nobody known"):
        places.base("~nobody-of-that-name/a", Path("/here"))


def test_base_file_beside_is_meant_only_if_it_is_there(tmp_path: Path) -> None:
    assert places.base("tiny.gguf", tmp_path) == "tiny.gguf"

    (tmp_path / "tiny.gguf").touch()
    assert places.base("tiny.gguf", tmp_path) == str(tmp_path / "tiny.gguf")
    assert places.base("tiny.gguf", None) == "tiny.gguf"


def test_adapter() -> None:
    assert places.adapter("a.gguf", Path("/here")) == "/here/a.gguf"
    assert places.adapter(DIGEST, None) == DIGEST
    with pytest.raises(InvalidRequestError, match=r"a.gguf is a path, which is not taken from here"):
        places.adapter("a.gguf", None)


@pytest.mark.parametrize("place", [places.base, places.adapter], ids=["base", "adapter"])
@pytest.mark.parametrize(
    ("text", "match"),
    [
        (" ", "is empty"),
        ("/a\nb", "cannot be printed"),
        ("/a\0", "cannot be printed"),
        ("/" + "a" * 5000, "has 5,001 characters"),
        (DIGEST.upper().replace("SHA", "sha"), "is no blob"),
    ],
    ids=["empty", "newline", "nul", "long", "digest"],
)
def test_place_refuses(place: object, text: str, match: str) -> None:
    assert callable(place)
    with pytest.raises(InvalidRequestError, match=match):
        place(text, Path("/here"))
