"""Aliases, endpoints, extra model folders, and the site's file under the user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbllm.config import Config, Endpoint, checked_base_url, key_in_environment, load_config
from nbllm.errors import ParameterError
from nbllm.store import resolve_listed
from tests.test_config import no_settings

__all__ = ["no_settings"]


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    return _made(tmp_path / "site" / "nbllm" / "config.toml")


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    return _made(tmp_path / "config" / "nbllm" / "config.toml")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    return path


# ---- the site's file


def test_load_config_the_users_file_overrides_the_sites(site_file: Path, user_file: Path) -> None:
    site_file.write_text('threads = 2\nmax_queue = 9\ndefault_model = "a"\n')
    user_file.write_text("threads = 3\n")

    config = load_config()

    assert (config.threads, config.max_queue, config.default_model) == (3, 9, "a")


def test_load_config_the_environment_overrides_both(
    site_file: Path, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site_file.write_text("threads = 2\n")
    user_file.write_text("threads = 3\n")
    monkeypatch.setenv("NBLLM_THREADS", "4")

    assert load_config().threads == 4


def test_load_config_tables_of_both_files_are_merged_by_name(site_file: Path, user_file: Path) -> None:
    site_file.write_text(
        '[aliases]\nfast = "a"\nbig = "b"\n'
        '[endpoints.gpu]\nbase_url = "http://gpu:8000/v1"\napi_key_env = "GPU_KEY"\nmodel = "m"\n'
        '[endpoints.old]\nbase_url = "http://old"\n'
    )
    user_file.write_text('[aliases]\nfast = "c"\n[endpoints.gpu]\nbase_url = "https://mine/v1/"\n')

    config = load_config()

    assert config.aliases == {"fast": "c", "big": "b"}
    assert config.endpoints == {
        "gpu": Endpoint(base_url="https://mine/v1"),  # whole, or a key would go to another server
        "old": Endpoint(base_url="http://old"),
    }


def test_load_config_paths_start_at_their_own_file(site_file: Path, user_file: Path) -> None:
    site_file.write_text('models_dirs = ["shared", "/srv/models"]\nkeys_file = "keys.json"\n')
    user_file.write_text('runtime_dir = "run"\n')

    config = load_config()

    assert config.models_dirs == (site_file.parent / "shared", Path("/srv/models"))
    assert config.keys_file == site_file.parent / "keys.json"
    assert config.runtime_dir == user_file.parent / "run"


@pytest.mark.parametrize(
    "content", ["thread = 2", "threads = true", "[aliases]\na = 5", "x = "], ids=["unknown", "value", "table", "toml"]
)
def test_load_config_error_in_the_sites_file_names_it(site_file: Path, user_file: Path, content: str) -> None:
    site_file.write_text(content)
    user_file.write_text("max_queue = 2\n")

    with pytest.raises(ParameterError) as refusal:
        load_config()

    assert str(site_file) in str(refusal.value)


def test_load_config_wrong_value_of_the_site_can_be_overridden(site_file: Path, user_file: Path) -> None:
    site_file.write_text("threads = 0\n")
    user_file.write_text("threads = 1\n")

    assert load_config().threads == 1


# ---- aliases


def test_unaliased_follows_to_the_end() -> None:
    config = Config(default_model="fast", aliases={"fast": "small", "small": "smollm2", "gpt-4o": "default"})

    assert [config.unaliased(name) for name in ("gpt-4o", "default", "small", "other")] == [
        "smollm2",
        "smollm2",
        "smollm2",
        "other",
    ]


def test_catch_all_is_what_the_star_stands_for() -> None:
    assert Config().catch_all() is None
    assert Config(aliases={"*": "default"}, default_model="m").catch_all() == "m"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aliases": {"a": "b", "b": "a"}}, "^aliases: form a loop: a -> b -> a"),
        ({"aliases": {"a": "a"}}, "^aliases: form a loop"),
        ({"aliases": {"a": "default"}, "default_model": "a"}, "^aliases: form a loop"),
        ({"default_model": "default"}, "^default_model: form a loop: default -> default"),
        ({"aliases": {"*": "*"}}, "^aliases: form a loop"),
        ({"aliases": {"default": "a"}}, "^aliases.default: always means default_model"),
        ({"aliases": {"a": ""}}, "^aliases.a: must be a model's name"),
        ({"aliases": {" ": "a"}}, "^aliases: ' ' is not a name"),
        ({"aliases": ["a"]}, "^aliases: must be a table"),
    ],
)
def test_config_refuses_aliases_that_lead_nowhere(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Config(**settings)  # type: ignore[arg-type]


def test_load_config_loop_over_two_files_names_the_users(site_file: Path, user_file: Path) -> None:
    site_file.write_text('[aliases]\na = "b"\n')
    user_file.write_text('[aliases]\nb = "a"\n')

    with pytest.raises(ParameterError, match="form a loop") as refusal:
        load_config()

    assert str(refusal.value).startswith(f"aliases in {user_file}: ")


# ---- endpoints


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[endpoints.x]\nmodel = "m"', r"endpoints\.x in .*: needs base_url"),
        ('[endpoints.x]\nbase_url = "ftp://a"', r"endpoints\.x\.base_url in .*: 'ftp://a' is not an http"),
        ('[endpoints.x]\nbase_url = "http://u:sk-secret@a/v1"', "must not hold a name or password"),
        ('[endpoints.x]\nbase_url = "http://a"\napi_key = "sk-secret"', r"endpoints\.x\.api_key in .*: a key does not"),
        ('[endpoints.x]\nbase_url = "http://a"\nAPI_KEY = "sk-secret"', "a key does not belong into a file"),
        ('[endpoints.x]\nbase_url = "http://a"\napi_key_env = "sk-secret"', "the name of an environment variable"),
        ('[endpoints.x]\nbase_url = "http://a"\nmodels = "m"', r"endpoints\.x\.models in .*: .* did you mean model\?"),
        ('[endpoints.x]\nbase_url = "http://a"\nmodel = ""', r"endpoints\.x\.model in .*: must be a model's name"),
        ('endpoints = "sk-secret"', "endpoints in .*: must be a table"),
        ('[endpoints]\nx = "sk-secret"', r"endpoints\.x in .*: must be a table with base_url"),
        ('[endpoints." "]\nbase_url = "http://a"', "' ' is not a name"),
    ],
)
def test_load_config_bad_endpoint_names_file_and_key_and_shows_no_secret(
    user_file: Path, content: str, message: str
) -> None:
    user_file.write_text(content)

    with pytest.raises(ParameterError, match=message) as refusal:
        load_config()

    assert str(user_file) in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_endpoint_reads_its_key_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(base_url="http://a/v1", api_key_env="SOME_KEY")
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ParameterError, match=r"^SOME_KEY: is not set; it has to hold the key for http://a/v1$"):
        endpoint.api_key()
    monkeypatch.setenv("SOME_KEY", " k ")

    assert endpoint.api_key() == "k"
    assert "k'" not in repr(endpoint)
    assert Endpoint(base_url="http://a/v1").api_key() is None


def test_key_in_environment_of_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", " ")

    assert key_in_environment("SOME_KEY") is None


@pytest.mark.parametrize(
    "url",
    [
        *("", " ", 5, "localhost:8000", "//a", "http://", "http://a:0", "http://a:99999", "http://a?x=1", "http://a#x"),
        *("http://a b", "file:///etc/passwd", "http://[::1"),
    ],
)
def test_checked_base_url_of_something_else_says_what_to_write(url: object) -> None:
    with pytest.raises(ParameterError, match=r"^base_url: .*http://localhost:8000/v1"):
        checked_base_url("base_url", url)


@pytest.mark.parametrize(
    ("url", "kept"),
    [(" http://a/v1/ ", "http://a/v1"), ("https://[::1]:8443", "https://[::1]:8443"), ("http://a/", "http://a")],
)
def test_checked_base_url_has_no_slash_at_its_end(url: str, kept: str) -> None:
    assert checked_base_url("base_url", url) == kept


# ---- folders


def test_resolve_listed_looks_into_every_folder_and_the_first_wins(tmp_path: Path) -> None:
    for name in ("own/a.gguf", "one/a.gguf", "one/b.gguf", "two/b.gguf", "two/c.gguf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    config = Config(models_dir=tmp_path / "own", models_dirs=(tmp_path / "one", tmp_path / "none", tmp_path / "two"))

    found = [resolve_listed(name, config).relative_to(tmp_path).as_posix() for name in ("a", "b", "c")]

    assert found == ["own/a.gguf", "one/b.gguf", "two/c.gguf"]


def test_load_config_has_no_variable_for_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBLLM_ENDPOINTS", "x")

    with pytest.raises(ParameterError, match=r"^NBLLM_ENDPOINTS: is no setting: write a table \[endpoints\] into "):
        load_config()

    assert os.environ["NBLLM_ENDPOINTS"] == "x"
