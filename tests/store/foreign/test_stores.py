"""All stores together, as the rest of nbllm sees them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.config import Config, stores
from nbllm.errors import ModelError, ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.frames.listing import models
from nbllm.server.naming import ModelNames
from nbllm.store import list_models, resolve, resolve_listed
from nbllm.store.foreign import lmstudio
from nbllm.store.foreign import stores as joined
from nbllm.store.foreign.look import Entry, Look
from nbllm.store.names import named_models
from tests.store import gguf_writer as g
from tests.store.foreign.made import TINY, digest_of, hub_file, manifest, ollama_manifest, ollama_model

Find = Callable[[str, Config], Path]
both = pytest.mark.parametrize("find", [resolve, resolve_listed], ids=["resolve", "listed"])
pytestmark = pytest.mark.skipif(os.name != "posix", reason="links")


@pytest.fixture
def files(store: Path) -> dict[str, Path]:
    """A model in each store, by the name that it is listed under."""
    return {
        "Falcon-Q4_0": g.write(store / "gpt4all/Falcon-Q4_0.gguf", TINY),
        "hf:org/tiny-GGUF:Q4_K_M": hub_file(store / "huggingface", "tiny-Q4_K_M.gguf"),
        "llama3.2:1b": ollama_model(store / "ollama"),
        "publisher/repo/file-Q8_0": g.write(store / "lmstudio/publisher/repo/file-Q8_0.gguf", TINY),
    }


def sources(config: Config) -> dict[str, str]:
    return {info.name: info.source for info in list_models(config)}


def test_each_store_is_listed_with_its_source(files: dict[str, Path], config: Config, models_dir: Path) -> None:
    own = g.write(models_dir / "own.gguf", TINY)
    other = g.write(models_dir.with_name("other") / "theirs.gguf", TINY)

    listed = list_models(replace(config, models_dirs=(other.parent,)))

    assert {info.name: Path(info.path) for info in listed} == {**files, "own": own, "theirs": other}
    assert {info.name: info.source for info in listed} == {
        "Falcon-Q4_0": "gpt4all",
        "hf:org/tiny-GGUF:Q4_K_M": "huggingface",
        "llama3.2:1b": "ollama",
        "own": "nbllm",
        "publisher/repo/file-Q8_0": "lmstudio",
        "theirs": "folder",
    }
    assert not any(info.problem for info in listed)
    assert {info.architecture for info in listed} == {"llama"}


@both
def test_each_listed_name_finds_its_file(find: Find, files: dict[str, Path], config: Config) -> None:
    for name, path in files.items():
        assert find(name, config) == path


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("ollama:llama3.2:1b", "llama3.2:1b"),
        ("Ollama:LLAMA3.2:1B", "llama3.2:1b"),
        ("ollama:library/llama3.2:1b", "llama3.2:1b"),
        ("ollama:registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
        ("hf:org/tiny-GGUF", "hf:org/tiny-GGUF:Q4_K_M"),
        ("hf:Org/Tiny-gguf:q4_k_m", "hf:org/tiny-GGUF:Q4_K_M"),
        ("hf:org/tiny-GGUF:latest", "hf:org/tiny-GGUF:Q4_K_M"),
        ("hf:org/tiny-GGUF/tiny-Q4_K_M.gguf", "hf:org/tiny-GGUF:Q4_K_M"),
        ("lmstudio:publisher/repo/file-Q8_0", "publisher/repo/file-Q8_0"),
        ("publisher/repo/file-Q8_0.gguf", "publisher/repo/file-Q8_0"),
        ("gpt4all:falcon-q4_0.gguf", "Falcon-Q4_0"),
        ("Falcon-Q4_0:latest", "Falcon-Q4_0"),
    ],
)
@both
def test_other_ways_to_write_a_name(find: Find, name: str, listed: str, files: dict[str, Path], config: Config) -> None:
    assert find(name, config) == files[listed]


@both
def test_tag_latest_may_be_left_out(find: Find, store: Path, config: Config) -> None:
    blob = ollama_model(store / "ollama", "registry.ollama.ai/library/llama3.2/latest")

    for name in ("llama3.2", "llama3.2:latest", "ollama:llama3.2", "ollama:llama3.2:latest"):
        assert find(name, config) == blob
    assert sources(config) == {"llama3.2": "ollama"}


@both
def test_own_model_goes_first_and_the_prefix_reaches_the_other(
    find: Find, store: Path, config: Config, models_dir: Path
) -> None:
    own = {name: g.write(models_dir / f"{name}.gguf", TINY) for name in ("Tiny", "pub/repo/same", "stem")}
    ollama = ollama_model(store / "ollama", "registry.ollama.ai/library/tiny/latest")
    lm = g.write(store / "lmstudio/pub/repo/same.gguf", TINY)
    gpt = g.write(store / "gpt4all/stem.gguf", TINY)

    assert {info.name: Path(info.path) for info in list_models(config)} == {
        **own,
        "ollama:tiny": ollama,
        "lmstudio:pub/repo/same": lm,
        "gpt4all:stem": gpt,
    }
    assert [find(name, config) for name in ("tiny", "tiny:latest", "stem", "pub/repo/same")] == [
        own["Tiny"], own["Tiny"], own["stem"], own["pub/repo/same"],
    ]  # fmt: skip
    for name, path in (("ollama:tiny", ollama), ("gpt4all:stem", gpt), ("lmstudio:pub/repo/same", lm)):
        assert find(name, config) == path


def test_folder_that_the_settings_name_too_is_listed_once(files: dict[str, Path], store: Path, config: Config) -> None:
    both_ways = replace(config, models_dirs=(store / "lmstudio",), foreign_stores=("lmstudio",))

    assert sources(both_ways) == {"publisher/repo/file-Q8_0": "folder"}
    assert resolve("lmstudio:publisher/repo/file-Q8_0", both_ways) == files["publisher/repo/file-Q8_0"]


def test_stores_go_first_as_the_setting_names_them(store: Path, config: Config) -> None:
    ollama_model(store / "ollama", "registry.ollama.ai/library/tiny/latest")
    g.write(store / "gpt4all/tiny.gguf", TINY)

    assert sources(config) == {"tiny": "ollama", "gpt4all:tiny": "gpt4all"}
    assert sources(replace(config, foreign_stores=("gpt4all", "ollama"))) == {
        "tiny": "gpt4all",
        "ollama:tiny": "ollama",
    }


@pytest.mark.parametrize("left_out", stores.FOREIGN_STORES)
def test_store_can_be_left_out(left_out: str, files: dict[str, Path], config: Config) -> None:
    some = replace(config, foreign_stores=tuple(name for name in stores.FOREIGN_STORES if name != left_out))

    assert left_out in sources(config).values()
    gone = set(sources(config)) - set(sources(some))
    assert [sources(config)[name] for name in gone] == [left_out]
    prefix = {"huggingface": ""}.get(left_out, f"{left_out}:")
    for name in gone:
        with pytest.raises(ModelNotFoundError):
            resolve(f"{prefix}{name}", some)


def test_first_folder_of_a_store_hides_the_second(
    store: Path, folders: dict[str, tuple[Path, ...]], config: Config
) -> None:
    folders["ollama"] = (store / "one", store / "two")
    one = ollama_model(store / "one")
    ollama_model(store / "two", data=TINY + b"more")
    two = ollama_model(store / "two", "registry.ollama.ai/library/other/latest", TINY + b"other")

    assert named_models(config) == {"llama3.2:1b": one, "other": two}


@both
def test_what_is_damaged_is_listed_and_said(find: Find, store: Path, config: Config) -> None:
    ollama_manifest(store / "ollama", "registry.ollama.ai/library/bad/latest", b"{")
    ollama_manifest(store / "ollama", "registry.ollama.ai/library/gone/latest", manifest(digest_of(b"gone")))
    link = hub_file(store / "huggingface", "a-Q4_0.gguf")
    link.unlink()
    link.symlink_to("../../../../../secret.gguf")
    g.write(store.parent / "secret.gguf", TINY)
    g.write(store / "gpt4all/cut.gguf", TINY[:-200])

    problems = {info.name: info.problem for info in list_models(config)}

    assert problems["bad"] == "its manifest is not JSON"
    assert "is not there" in problems["gone"]
    assert "leads out of its store" in problems["hf:org/tiny-GGUF:Q4_0"]
    assert problems["cut"].startswith("truncated: ")
    assert list(named_models(config)) == ["cut"]  # its file may be read, and then says so
    for name in ("bad", "ollama:gone", "hf:org/tiny-GGUF:Q4_0", "gone:latest"):
        with pytest.raises(ModelLoadError, match="cannot be loaded: ") as raised:
            find(name, config)
        assert str(store) not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama3.2", "no model 'llama3.2'; the closest names: llama3.2:1b"),
        ("ollama:llama3.2", "no model 'ollama:llama3.2'; the closest names: ollama:llama3.2:1b"),
        ("hf:org/tiny-GGUF:Q2_K", "in the Hugging Face cache, org/tiny-GGUF has no Q2_K; it has Q4_K_M"),
        ("hf:org/other", "no model 'hf:org/other'; the closest names: hf:org/tiny-GGUF:Q4_K_M"),
        ("hf:../x", "no model 'hf:../x'"),
        ("gpt4all:../secret", "no model 'gpt4all:../secret'"),
        ("ollama:", "no model 'ollama:'"),
    ],
)
@both
def test_name_that_is_not_there(find: Find, name: str, said: str, files: dict[str, Path], config: Config) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        find(name, config)

    assert said in str(raised.value)
    assert str(config.models_dir.parent) not in str(raised.value)


def test_pulled_model_goes_before_the_cached_one(files: dict[str, Path], config: Config, models_dir: Path) -> None:
    pulled = g.write(models_dir / "org/tiny-GGUF/tiny-Q4_K_M.gguf", TINY)

    assert resolve("hf:org/tiny-GGUF:Q4_K_M", config) == pulled
    assert resolve_listed("hf:org/tiny-GGUF", config) == pulled
    assert resolve("hf:org/tiny-GGUF:Q4_K_M", replace(config, foreign_stores=())) == pulled


def test_file_of_that_name_does_not_hide_a_prefix(
    files: dict[str, Path], config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g.write(tmp_path / "work" / "gpt4all:Falcon-Q4_0.gguf", TINY)

    assert resolve("gpt4all:Falcon-Q4_0.gguf", config) == files["Falcon-Q4_0"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    prefix=st.sampled_from(["", "ollama:", "hf:", "lmstudio:", "gpt4all:", "hf://"]),
    rest=st.text(st.sampled_from("./\\:a~\0é "), max_size=20) | st.text(max_size=20),
)
def test_any_name_stays_inside_or_is_refused(
    prefix: str, rest: str, files: dict[str, Path], config: Config, tmp_path: Path
) -> None:
    g.write(tmp_path / "a.gguf", TINY)
    try:
        found = resolve_listed(prefix + rest, config)
    except (ModelError, ParameterError) as exc:
        assert "\n" not in str(exc)  # noqa: PT017
    else:
        assert found in files.values()


def test_second_listing_does_not_look_again(
    files: dict[str, Path], store: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (store, *store.rglob("*")):
        os.utime(path, (10**9, 10**9))
    first = list_models(config)

    def fail(look: Look) -> dict[str, Entry]:
        raise AssertionError("looked again")

    monkeypatch.setattr(joined, "_MODELS", dict.fromkeys(stores.FOREIGN_STORES, fail))
    assert list_models(config) == first
    g.write(store / "lmstudio/publisher/repo/new.gguf", TINY)
    monkeypatch.setitem(joined._MODELS, "lmstudio", lmstudio.lmstudio_models)
    assert "publisher/repo/new" in sources(config)


def test_api_clients_find_them(files: dict[str, Path], config: Config) -> None:
    names = ModelNames(lambda: config, ())

    assert {name: target.path for name, target in names.listed().items()} == files
    assert names.target("ollama:llama3.2:1b").name == "llama3.2:1b"
    assert names.target("hf:org/tiny-GGUF").path == files["hf:org/tiny-GGUF:Q4_K_M"]


def test_api_clients_are_told_of_damage(store: Path, config: Config) -> None:
    ollama_manifest(store / "ollama", "registry.ollama.ai/library/bad/latest", b"{")
    names = ModelNames(lambda: config, ())

    assert names.listed() == {}
    with pytest.raises(ModelLoadError, match="the model 'bad' cannot be loaded: its manifest is not JSON"):
        names.target("bad")


def test_models_table_has_the_source(files: dict[str, Path], config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBLLM_FOREIGN_STORES", "ollama,gpt4all")

    table = models()

    assert dict(zip(table["name"], table["source"], strict=True)) == {"Falcon-Q4_0": "gpt4all", "llama3.2:1b": "ollama"}
