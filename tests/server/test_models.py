"""`GET /v1/models`, `/v1/models/NAME` and `/v1/health`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbllm.errors import ModelLoadError
from tests.server.serving import BROKEN, CHAT, OTHER, TOY, Site, chat
from tests.store.gguf_writer import tiny_model, u32, write


def _names(site: Site) -> list[str]:
    return [entry["id"] for entry in site.get("v1/models").json()["data"]]


def test_models_are_those_of_the_folder_and_the_aliases(site: Site) -> None:
    names = _names(site)
    assert {TOY, OTHER, "gpt-4"} <= set(names)
    assert BROKEN not in names
    assert len(set(names)) == len(names)


def test_each_model_has_the_fields_that_clients_check(site: Site) -> None:
    path = site.models_dir / f"{TOY}.gguf"
    told = next(entry for entry in site.get("v1/models").json()["data"] if entry["id"] == TOY)
    assert told == {"id": TOY, "object": "model", "created": int(path.stat().st_mtime), "owned_by": "nbllm"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("toy", TOY),
        ("teams/other:7b", OTHER),
        ("teams%2Fother%3A7b", OTHER),
        ("gpt-4", "gpt-4"),
    ],
)
def test_model_by_name(site: Site, path: str, name: str) -> None:
    answer = site.get(f"v1/models/{path}")
    assert answer.status == 200
    assert answer.json()["id"] == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "no model 'nothing'"),
        ("toi", "closest names: toy"),
        (BROKEN, "cannot be loaded"),
        ("50%25s", "50%s"),
        ("..%2F..%2Fetc%2Fpasswd", "no model '../../etc/passwd'"),
        ("%00", "NUL"),
        ("x" * 5000, "4,096 are the most"),
    ],
)
def test_model_that_is_not_there(site: Site, name: str, said: str) -> None:
    answer = site.get(f"v1/models/{name}")
    assert answer.status == 404
    assert said in answer.error["message"]
    assert answer.error["code"] == "model_not_found"
    assert answer.error["param"] == "model"


def test_a_model_put_into_the_folder_is_there_at_once(site: Site) -> None:
    path = write(site.models_dir / "fresh.gguf", tiny_model())
    try:
        assert "fresh" in _names(site)
        assert site.post(CHAT, chat(model="fresh")).json()["model"] == "fresh"
    finally:
        path.unlink()
    assert "fresh" not in _names(site)
    assert site.post(CHAT, chat(model="fresh")).status == 404


def test_an_unknown_model_is_answered_with_close_names(site: Site) -> None:
    error = site.post(CHAT, chat(model="toi")).error
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert "toy" in error["message"]


def test_a_path_is_no_name(site: Site, tmp_path: Path) -> None:
    """Clients may not ask which files there are."""
    path = write(tmp_path / "elsewhere.gguf", tiny_model())
    for name in (str(path), os.path.relpath(path), "~/x.gguf", "../elsewhere"):
        assert site.post(CHAT, chat(model=name)).status == 404
    assert site.cast.specs == []


def test_the_catch_all_alias_takes_any_name(tmp_path: Path) -> None:
    with Site(tmp_path, model_aliases={"*": OTHER}) as site:
        assert site.post(CHAT, chat(model="gpt-4o-2024-11-20")).json()["model"] == OTHER
        assert site.post(CHAT, chat(model=TOY)).json()["model"] == TOY
        assert "*" not in _names(site)
        assert site.get("v1/models/gpt-4o").json()["id"] == OTHER
        assert site.get("v1/models/toy/").json()["id"] == TOY


def test_a_model_that_settings_name_by_its_path_has_a_name_without_it(tmp_path: Path) -> None:
    mine, big = (write(tmp_path / "own" / f"{name}.gguf", tiny_model()) for name in ("mine", "elephant"))
    with Site(tmp_path, default_model=str(mine), model_aliases={"big": str(big), "grand": str(big)}) as site:
        told = site.get("v1/models")
        assert {"mine", "big", "grand"} <= set(_names(site))
        for asked, name in {
            "default": "mine",
            "mine": "mine",
            "MINE.gguf": "mine",
            "big": "big",
            "grand": "big",
        }.items():
            assert site.post(CHAT, chat(model=asked)).json()["model"] == name
            assert site.get(f"v1/models/{asked}").json()["id"] == (asked if asked == "grand" else name)
        assert str(tmp_path) not in told.body.decode()
        big.unlink()
        told = site.post(CHAT, chat(model="grand"))
        assert (told.status, told.error["code"]) == (404, "model_not_found")
        assert "elephant" not in told.error["message"]
        assert "big" not in _names(site)


@pytest.mark.parametrize(
    ("opened", "listed", "asked"),
    [
        pytest.param([TOY], {TOY, "gpt-4"}, "gpt-4", id="the model"),
        pytest.param(["gpt-4"], {"gpt-4"}, "gpt-4", id="its alias"),
        pytest.param(["gpt-4o"], {"gpt-4o"}, "gpt-4o", id="a name that * catches"),
        pytest.param(["default"], {"default"}, "default", id="default"),
    ],
)
def test_a_key_sees_what_it_opens(tmp_path: Path, opened: list[str], listed: set[str], asked: str) -> None:
    with Site(tmp_path, model_aliases={"*": TOY, "gpt-4": TOY}) as site:
        headers = {"Authorization": f"Bearer {site.keys.create('k', models=opened).secret}"}
        assert {entry["id"] for entry in site.get("v1/models", headers=headers).json()["data"]} == listed
        assert site.get(f"v1/models/{asked}", headers=headers).status == 200
        assert site.post(CHAT, chat(model=asked), headers=headers).status == 200
        assert site.get(f"v1/models/{OTHER}", headers=headers).status == 403


def test_a_file_that_cannot_be_loaded_starts_nothing_and_is_told_without_its_folder(site: Site) -> None:
    answer = site.post(CHAT, chat(model=BROKEN))
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert "'broken' cannot be loaded: is not a GGUF" in answer.error["message"]
    assert site.cast.specs == []


def test_what_a_runner_says_of_a_file_is_told_without_its_folder(site: Site) -> None:
    site.cast.errors.append(ModelLoadError(f"{site.models_dir / 'toy.gguf'} cannot be loaded: odd"))
    assert site.post(CHAT, chat()).error["message"] == "toy.gguf cannot be loaded: odd"


@pytest.mark.parametrize("name", ["/etc/passwd", "~/nothing", "x.gguf", "nothing"])
def test_an_unknown_name_is_told_without_a_folder(site: Site, name: str) -> None:
    told = site.post(CHAT, chat(model=name)).error["message"]
    assert told.startswith(f"no model {name!r}; the closest names: ")
    assert str(site.folder) not in told


def test_a_context_beyond_what_the_model_has_learnt_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Site(tmp_path, context_length=4096) as site:
        write(site.models_dir / "short.gguf", tiny_model(llama__context_length=u32(1024)))
        write(site.models_dir / "long.gguf", tiny_model(llama__context_length=u32(4096)))
        for name in ("short", "long", "short"):
            site.get(f"v1/models/{name}")
    (told,) = [record.getMessage() for record in caplog.records if "was trained for" in record.getMessage()]
    assert "short was trained for a context of 1,024 tokens" in told


def test_health_needs_no_key(site: Site) -> None:
    answer = site.get("v1/health", bare=True)
    assert answer.status == 200
    assert answer.json() == {"status": "ok"}


def test_listing_loads_nothing(site: Site) -> None:
    _names(site)
    site.get(f"v1/models/{TOY}")
    assert site.cast.specs == []
