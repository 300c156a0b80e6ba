from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nbllm.server.keys import KeyStore
from nbllm.server.keys_cli import main


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nbllm" / "keys.json"


def test_create_prints_the_secret_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "laptop"], path) == 0
    out, err = capsys.readouterr()
    secret = out.strip()
    assert re.fullmatch("sk-[A-Za-z0-9]{48}", secret)
    assert "opens chat, embeddings, models until it is revoked" in err
    assert f"jupyter nbllm keys revoke {secret[3:11]}" in err
    assert secret not in err
    assert KeyStore(path).verify(secret).key is not None


def test_create_with_every_option(path: Path) -> None:
    options = ["--scopes", "chat, manage", "--models", "a,b", "--expires", "30d", "--max-concurrent", "4"]
    assert main(["create", "ci", *options], path) == 0
    (key,) = KeyStore(path).list()
    assert (key.scopes, key.models, key.max_concurrent) == (("chat", "manage"), ("a", "b"), 4)
    assert key.expires is not None
    assert timedelta(0) < key.expires - datetime.now(UTC) <= timedelta(days=30)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(
            ["create", "ci", "--scopes", "chats"], "--scopes: 'chats' is not an option; did you mean chat", id="scope"
        ),
        pytest.param(["create", "ci", "--scopes", ""], "--scopes: a key without any opens nothing", id="no scope"),
        pytest.param(["create", "ci", "--models", ","], "--models: must be names of models", id="no model"),
        pytest.param(["create", "ci", "--expires", "soon"], "--expires: must be a number and m, h, d or w", id="time"),
        pytest.param(["create", "ci", "--expires", "0d"], "--expires: must be a time to come", id="now"),
        pytest.param(["create", "ci", "--expires", "999999w"], "--expires: is too far off", id="far"),
        pytest.param(["create", "ci", "--max-concurrent", "0"], "--max-concurrent: 0 is out of range", id="count"),
        pytest.param(["create", " "], "NAME: must be 1 to 64 visible characters", id="name"),
        pytest.param(["create", "notebook"], "NAME: 'notebook' would be misread", id="reserved name"),
        pytest.param(["revoke", "laptop"], "no key has the id or name 'laptop'", id="no such key"),
    ],
)
def test_refusal_is_one_line(path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(words, path) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"jupyter nbllm keys: {said}")
    assert err.count("\n") == 1
    assert not out
    assert not path.exists()


@pytest.mark.parametrize(
    "words", [[], ["rename"], ["create"], ["revoke"], ["create", "a", "--max-concurrent", "x"], ["list", "--all"]]
)
def test_what_is_no_command_exits_with_2(path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words, path) == 2
    assert "usage: jupyter nbllm keys" in capsys.readouterr().err


def test_help_explains_the_scopes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "--help"], path) == 0
    assert "download, create, copy and delete models" in capsys.readouterr().out


def test_list_shows_keys_without_secrets(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long_ago = KeyStore(path, now=lambda: datetime(2020, 1, 1, tzinfo=UTC))
    long_ago.create("old", expires_in=timedelta(days=1))
    secret = KeyStore(path).create("laptop", models=["a", "b"], max_concurrent=3).secret
    assert main(["list"], path) == 0
    headings, old, laptop = capsys.readouterr().out.splitlines()
    assert headings.split()[:3] == ["ID", "NAME", "SCOPES"]
    assert old.endswith("2020-01-02 00:00 UTC (expired)")
    assert laptop.split()[:5] == [secret[3:11], "laptop", "chat,embeddings,models", "a,b", "3"]
    assert laptop.endswith("never")
    assert secret not in laptop
    assert headings.index("EXPIRES") == laptop.index("never")


def test_list_of_no_keys_says_how_to_make_one(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"], path) == 0
    out, err = capsys.readouterr()
    assert not out
    assert "jupyter nbllm keys create NAME" in err


def test_list_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = KeyStore(path).create("laptop", models=["a"]).key
    assert main(["list", "--json"], path) == 0
    out = capsys.readouterr().out
    (told,) = json.loads(out)
    assert (told["id"], told["name"], told["models"], told["expires"]) == (key.id, "laptop", ["a"], None)
    assert key.sha256 not in out


def test_list_of_no_keys_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"], path) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_revoke_of_an_unknown_secret_does_not_show_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "sk-" + "x" * 48
    assert main(["revoke", secret], path) == 1
    err = capsys.readouterr().err
    assert secret not in err
    assert "keys list" in err


@pytest.mark.parametrize("by", ["id", "name", "secret"])
def test_revoke(path: Path, capsys: pytest.CaptureFixture[str], by: str) -> None:
    created = KeyStore(path).create("laptop")
    assert main(["revoke", created.secret if by == "secret" else getattr(created.key, by)], path) == 0
    err = capsys.readouterr().err
    assert "opens nothing any more" in err
    assert created.secret not in err
    assert KeyStore(path).verify(created.secret).key is None


def test_damaged_file_is_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    KeyStore(path).create("laptop")
    path.write_text(json.dumps({"version": 2, "keys": []}))
    assert main(["list"], path) == 1
    assert "is damaged" in capsys.readouterr().err
