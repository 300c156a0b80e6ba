from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbllm.config import load_config
from nbllm.server.command import main
from nbllm.store.presets import shelf
from tests.store.gguf_writer import tiny_model, write


@pytest.fixture(autouse=True)
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("NBLLM_MODELS_DIR", str(folder))
    monkeypatch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path / "engines"))
    monkeypatch.chdir(tmp_path)
    write(folder / "m.gguf", tiny_model())
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_preset_is_made_shown_copied_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("Modelfile").write_text("FROM m\nSYSTEM Be kind.\n")
    assert said(capsys, "create", "kind", "-f", "Modelfile") == "kind is made of m\n"
    assert said(capsys, "create", "brief", "from=kind", "temperature=0.2") == "brief is made of kind\n"
    assert "temperature 0.2" in said(capsys, "show", "brief")
    assert json.loads(said(capsys, "show", "brief", "--json"))["system"] == "Be kind."
    assert said(capsys, "show", "kind", "--modelfile").startswith("FROM m\n")
    said(capsys, "cp", "kind", "other")
    assert sorted(shelf.presets(load_config())) == ["brief", "kind", "other"]
    assert said(capsys, "rm", "other").startswith("removing the preset other frees")
    assert sorted(shelf.presets(load_config())) == ["brief", "kind"]
    assert main(["rm", "brief", "nothing"]) == 1
    assert sorted(shelf.presets(load_config())) == ["brief", "kind"]
    assert said(capsys, "rm", "kind", "KIND:latest", "brief").splitlines()[0].startswith("removing the preset brief")
    assert not shelf.presets(load_config())


def test_list_is_another_name_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "create", "brief", "from=m")
    listed = said(capsys, "list")
    assert listed == said(capsys, "models")
    assert next(line for line in listed.splitlines() if line.startswith("brief ")).endswith("made of m")


def test_model_goes_by_force(models_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "create", "brief", "from=m")
    assert main(["rm", "m"]) == 1
    assert "--force" in capsys.readouterr().err
    assert "brief is made of m" in said(capsys, "rm", "m", "--force")
    assert not (models_dir / "m.gguf").exists()


def test_another_preset_is_replaced_by_force(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "create", "one", "from=m")
    said(capsys, "create", "two", "from=m", "temperature=1")
    assert main(["cp", "one", "two"]) == 1
    said(capsys, "cp", "one", "two", "--force")
    assert shelf.presets(load_config())["two"].sampling.temperature is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["show", "mm"], "no model 'mm'", id="show unknown"),
        pytest.param(["create", "x", "from=mm"], "no model 'mm'", id="unknown base"),
        pytest.param(["create", "x", "sytem=a", "from=m"], "did you mean system?", id="misspelt option"),
        pytest.param(["create", "x", "-f", "nowhere"], "nowhere cannot be read", id="missing file"),
        pytest.param(["cp", "m", "../x"], "name", id="name that leaves the folder"),
        pytest.param(["rm", "default"], "another name for smollm2", id="remove an alias"),
    ],
)
def test_wrong_word_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert main(words) == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("jupyter nbllm: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["create", "x"],
        ["create", "x", "-f", "Modelfile", "from=m"],
        ["cp", "m"],
        ["rm"],
        ["show", "m", "--modefile"],
    ],
    ids=" ".join,
)
def test_missing_word_is_said_with_the_form(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"usage: jupyter nbllm {words[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "meant"), [("lst", "list"), ("creat", "create"), ("shw", "show"), ("remove", "rm")])
def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str], word: str, meant: str) -> None:
    assert main([word]) == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err
