from __future__ import annotations

import re
from dataclasses import replace

import pytest

from nbllm.store.remote.names import hub_name
from nbllm.store.remote.short_names import closest, fitting, short_name


def test_every_entry_is_a_name_of_the_hub() -> None:
    models = fitting(1 << 60)
    assert len(models) >= 15
    for model in models:
        named = hub_name(f"hf:{model.repository}/{model.file}")
        assert named is not None
        assert replace(named, sha256=model.sha256) == model.hub_name
        assert re.fullmatch("[0-9a-f]{64}", model.sha256) or model.name == "gemma:7b"
        assert short_name(model.name) is model
        assert model.licence
        assert model.name == model.name.casefold()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gemma:7b", "gemma:7b"),
        ("llama2", "llama2:7b"),
        ("mistral:latest", "mistral:7b"),
        ("Phi-3.5-Mini", "phi3.5:3.8b"),
        ("smollm2", "smollm2:135m"),
    ],
)
def test_aliases_and_tags(text: str, name: str) -> None:
    found = short_name(text)
    assert found is not None
    assert found.name == name


def test_aliases_lead_to_entries() -> None:
    for alias in (
        "smollm2",
        "qwen2.5",
        "qwen3",
        "llama3.2",
        "llama3.1",
        "llama2",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma4",
        "qwen3.5",
        "gpt-oss",
        "deepseek-r1",
        "tinyllama",
        "nomic-embed-text",
    ):
        assert short_name(alias) is not None
    assert short_name("no-such-model") is None


def test_no_two_entries_are_one_file() -> None:
    known = [model.sha256 for model in fitting(1 << 60) if model.sha256]
    assert len(set(known)) == len(known)


def test_fitting_is_sorted_and_bounded() -> None:
    sizes = [model.size_bytes for model in fitting(3 * 10**9)]
    assert sizes == sorted(sizes)
    assert max(sizes) < 3 * 10**9
    assert fitting(10**8) == []


def test_closest_knows_what_was_meant() -> None:
    assert "llama3.2:1b" in closest("llama3.2:1")
