from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import ParameterError
from nbllm.store.presets.naming import preset_name
from nbllm.store.pulling.registry_names import RegistryName, registry_name


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("gemma", RegistryName(model="gemma")),
        ("gemma:7b", RegistryName(model="gemma", tag="7b")),
        ("library/gemma:latest", RegistryName(model="gemma")),
        ("registry.ollama.ai/library/gemma", RegistryName(model="gemma")),
        ("ollama:gemma:7b", RegistryName(model="gemma", tag="7b")),
        ("Ollama:someone/x_y.z-1:v1.0", RegistryName(namespace="someone", model="x_y.z-1", tag="v1.0")),
    ],
)
def test_names_of_the_registry(text: str, means: RegistryName) -> None:
    assert registry_name(text) == means


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (RegistryName(model="gemma"), "gemma"),
        (RegistryName(model="gemma", tag="7b"), "gemma:7b"),
        (RegistryName(namespace="someone", model="m"), "someone/m"),
        (RegistryName(namespace="someone", model="m", tag="x"), "someone/m:x"),
    ],
)
def test_a_name_is_as_short_as_it_can_be(name: RegistryName, text: str) -> None:
    assert str(name) == text
    assert registry_name(text) == name
    assert preset_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "folder/file.gguf", "a.GGUF", "a/b/c", "hf:org/repo", "lmstudio:x", "gpt4all:x", "../x", "a..b", "/x", "x/",
        "x:", "a b", "x?y", "x#y", "x@y", "x%2fy", "\u00e4", "_x", ".x", "x:y:z", "x:.y", "x" * 81, "C:\\x",
    ],
)  # fmt: skip
def test_what_is_no_name_of_the_registry(text: str) -> None:
    assert registry_name(text) is None


@pytest.mark.parametrize("text", ["", "a/b/c", "../x", "x.gguf", "x:y:z", "a b", "x" * 81])
def test_what_says_that_it_is_one_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ParameterError, match=r"ollama:someone/model:tag") as refused:
        registry_name(f"ollama:{text}")
    assert "\n" not in str(refused.value)


_PIECES = st.sampled_from(["..", ".", "/", "\\", ":", "\0", "a", "%2e", "?", "#", "@", " ", "library/", "\u2044", "-"])


@given(st.lists(_PIECES, max_size=10).map("".join) | st.text(max_size=40))
def test_no_name_leaves_its_address_or_its_folder(text: str) -> None:
    for one in (text, f"ollama:{text}"):
        try:
            name = registry_name(one)
        except ParameterError:
            continue
        if name is not None:
            for part in (name.namespace, name.model, name.tag):
                assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", part)
                assert ".." not in part
            assert preset_name(str(name)) == str(name)
