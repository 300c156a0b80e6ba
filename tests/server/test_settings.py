"""The settings as traits: what is set there goes before the file, and what is not leaves it alone."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from traitlets import TraitError

from nbllm.config import Config, load_config
from nbllm.errors import ParameterError
from nbllm.server import settings
from nbllm.server.settings import Settings

GIVEN: dict[str, Any] = {
    "default_model": "other",
    "model_aliases": {"gpt-4": "smollm2"},
    "endpoints": {"far": {"base_url": "http://127.0.0.1:9/v1"}},
    "models_dir": "/models",
    "registry": "none",
    "runtime_dir": "/run/nbllm",
    "context_length": 512,
    "max_sequences": 3,
    "max_loaded_models": 1,
    "max_queue": 7,
    "load_timeout": 9.0,
    "keys_file": "/keys.json",
    "foreign_stores": ["gpt4all"],
    "chats_dir": "/chats",
    "allow_origins": ["https://app.example"],
    "share_kernels": False,
    "keep_alive": "10m",
}


class _Application(Settings):
    log = logging.getLogger("test")


def test_what_is_not_set_is_the_files() -> None:
    assert Settings().with_traits(load_config()) == load_config()


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_set_goes_first(name: str) -> None:
    field = {"model_aliases": "aliases"}.get(name, name)
    config = Settings(**{name: GIVEN[name]}).with_traits(Config())
    assert config == replace(Config(), **{field: GIVEN[name]})
    assert config != Config()


def test_every_server_setting_is_a_trait() -> None:
    kernels_own = {"memory_fraction", "prefix_store_bytes", "threads", "cores_file", "models_dirs"}
    named = {"aliases" if name == "model_aliases" else name for name in GIVEN}
    assert {field.name for field in fields(Config)} == kernels_own | named


def test_bad_value_is_told_by_the_traits_name() -> None:
    with pytest.raises(ParameterError, match=r"NbllmApp\.keep_alive: must be seconds"):
        Settings(keep_alive="soon").with_traits(Config())
    with pytest.raises(ParameterError, match=r"NbllmApp\.model_aliases"):
        Settings(model_aliases={"default": "x"}).with_traits(Config())
    with pytest.raises(TraitError):
        Settings(max_queue="many")


def test_changed_file_counts_and_a_broken_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("max_queue = 5\n")
    monkeypatch.setenv("NBLLM_CONFIG", str(file))
    monkeypatch.setattr(settings, "_FRESH_S", 0.0)
    current = _Application().live_config()
    assert current().max_queue == 5
    file.write_text("max_queue = 6\n")
    assert current().max_queue == 6
    file.write_text("max_queue = [\n")
    assert current().max_queue == 6
    assert "is not TOML" in caplog.text


def test_unknown_names_mean_the_default_model_where_the_server_says_so() -> None:
    told = Settings()
    assert told.with_traits(Config(default_model="m")).catch_all() is None
    told.catches_all = True
    assert told.with_traits(Config(default_model="m")).catch_all() == "m"
    assert told.with_traits(Config(aliases={"*": "n"})).catch_all() == "n"
    told.model_aliases = {"*": "t"}
    assert told.with_traits(Config(aliases={"*": "n"})).catch_all() == "t"


def test_limits_are_what_was_set() -> None:
    limits = Settings(max_body_bytes=5, stall_s=1.5, hold_s=2.5, ping_s=3.5).limits(Config(max_queue=4))
    assert (limits.max_body_bytes, limits.stall_s, limits.hold_s, limits.ping_s, limits.max_queue) == (
        5,
        1.5,
        2.5,
        3.5,
        4,
    )
