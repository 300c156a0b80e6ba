"""`GET /v1/models`, `/v1/models/NAME` and `/v1/health`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.server.serving import BROKEN, CHAT, OTHER, TOY, Site, chat
from tests.store.gguf_writer import tiny_model, write


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
        ("nothing", "is not on this machine"),
        (BROKEN, "cannot be loaded"),
        ("50%25s", "50%s"),
        ("..%2F..%2Fetc%2Fpasswd", "is not on this machine"),
        ("%00", "is not on this machine"),
        ("x" * 5000, "is not on this machine"),
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
        assert site.get("v1/models/gpt-4o").status == 404


def test_health_needs_no_key(site: Site) -> None:
    answer = site.get("v1/health", bare=True)
    assert answer.status == 200
    assert answer.json() == {"status": "ok"}


def test_listing_loads_nothing(site: Site) -> None:
    _names(site)
    site.get(f"v1/models/{TOY}")
    assert site.cast.specs == []
