from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import ParameterError
from nbllm.store.presets.naming import file_name, folded, named_by, preset_name
from tests.store.presets import made


@pytest.mark.parametrize(
    ("text", "name", "file"),
    [
        ("mario", "mario", "mario.toml"),
        ("Mario:latest", "Mario", "Mario.toml"),
        ("my/mario:7b", "my/mario:7b", "my%2Fmario%3A7b.toml"),
        ("1.a_b-c", "1.a_b-c", "1.a_b-c.toml"),
        ("a" * 200, "a" * 200, "a" * 200 + ".toml"),
    ],
)
def test_preset_name(text: str, name: str, file: str) -> None:
    assert preset_name(text) == name
    assert file_name(name) == file
    assert named_by(file) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":latest",
        ".a",
        "-a",
        "/a",
        "a/",
        "a//b",
        "a:",
        "a/../b",
        "..",
        "a..b",
        "a b",
        "a\\b",
        "a\0",
        "a\n",
        "é",
        "a%2e",
        "a" * 201,
        "/".join("a" * 90),
    ],
    ids=lambda text: f"{text[:10]!a}",
)
def test_preset_name_refuses(text: str) -> None:
    with pytest.raises(ParameterError, match=r"^name: ") as refused:
        preset_name(text)

    assert "\n" not in str(refused.value)


def test_preset_name_refuses_what_is_no_text() -> None:
    with pytest.raises(ParameterError, match="must be a text, not int"):
        preset_name(3)


@made.few
@given(st.text(max_size=20) | st.lists(st.sampled_from(["a", ".", "/", ":", "..", "%2F"]), max_size=9).map("".join))
def test_file_name_of_a_name_stays_in_its_folder(text: str) -> None:
    try:
        name = preset_name(text)
    except ParameterError:
        return
    file = file_name(name)

    assert not set(file) & set("/\\:\0")
    assert file[0] != "."
    assert named_by(file) == name


def test_folded() -> None:
    assert folded("Mario:LATEST") == folded("mario") != folded("mario:7b")
