from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbllm.config import load_config
from nbllm.core.presets import Preset
from nbllm.session.tuning.setting import Setting
from nbllm.store.presets import shelf
from tests.notebook.conftest import Notebook
from tests.notebook.test_cells import ask
from tests.session.tuning.keeping import keep
from tests.store.gguf_writer import tiny_model, write


@pytest.fixture(autouse=True)
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a model `m` and its part of the disk."""
    folder = tmp_path / "models"
    monkeypatch.setenv("NBLLM_MODELS_DIR", str(folder))
    monkeypatch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path / "engines"))
    write(folder / "m.gguf", tiny_model())
    return folder


def kept(name: str) -> Preset:
    found = shelf.find(name, load_config())
    assert found is not None
    return found


def test_cell_becomes_a_preset(notebook: Notebook) -> None:
    assert notebook.run("%%llm create mario\nFROM m\nPARAMETER temperature 0.2\nSYSTEM You are {Mario}.\n").success
    assert notebook.plain == "mario is made of m"
    assert (kept("mario").system, kept("mario").sampling.temperature) == ("You are {Mario}.", 0.2)


def test_error_in_a_cell_names_the_line_of_the_cell(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    assert not notebook.run("%%llm create mario\nFROM m\nSAY hello\n").success
    assert "line 3" in capsys.readouterr().out
    assert shelf.presets(load_config()) == {}


def test_file_and_options_become_presets(notebook: Notebook) -> None:
    Path("Modelfile").write_text("FROM m\nSYSTEM Be kind.\n")
    assert notebook.run("%llm create kind -f Modelfile").success
    assert notebook.run('%llm create brief from=kind system="Be \\"brief\\"." temperature=0.2').success
    assert (kept("kind").system, kept("brief").system) == ("Be kind.", 'Be "brief".')
    assert (kept("brief").base, kept("brief").sampling.temperature) == ("kind", 0.2)


def test_presets_are_in_the_table_of_models(notebook: Notebook) -> None:
    notebook.run("%llm create brief from=m")
    rows: Any = notebook.run("%llm models").result
    row = rows.set_index("name").loc["brief"]
    assert (row["source"], row["architecture"], row["quantization"], row["problem"]) == (
        "preset",
        "llama",
        "Q4_K_M",
        "",
    )
    assert row["path"].endswith("m.gguf")


def test_show_of_a_name_tells_the_model_and_alone_what_was_sent(notebook: Notebook) -> None:
    notebook.run('%llm create brief from=m system="Be brief."')
    assert notebook.run("%llm show brief").success
    assert "made of" in notebook.plain
    assert "Be brief." in notebook.plain
    assert notebook.run("%llm show brief --modelfile").success
    assert notebook.plain.startswith("FROM m\n")
    ask(notebook, "%chat one", "A1")
    assert notebook.run("%llm show").success
    assert "question: one" in notebook.plain


def test_copy_is_a_second_name(notebook: Notebook) -> None:
    assert notebook.run("%llm cp m mine").success
    assert kept("mine").base == "m"
    assert "no bytes" in notebook.plain
    notebook.run("%llm create other from=m temperature=1")
    assert not notebook.run("%llm cp other mine").success
    assert notebook.run("%llm cp other mine --force").success
    assert kept("mine").sampling.temperature == 1


def test_removal_says_what_it_frees_and_removes_it(notebook: Notebook, models_dir: Path) -> None:
    notebook.run("%llm create brief from=m")
    notebook.run("%llm create kind from=m")
    assert not notebook.run("%llm rm kind nothing").success
    assert notebook.run("%llm rm kind brief").success
    assert notebook.plain.startswith("removing the preset brief frees")
    notebook.run("%llm create brief from=m")
    assert notebook.run("%llm rm brief").success
    assert notebook.plain.startswith("removing the preset brief frees")
    assert notebook.run("%llm rm m").success
    assert str(models_dir / "m.gguf") in notebook.plain
    assert not (models_dir / "m.gguf").exists()


def test_model_of_a_preset_goes_only_by_force(
    notebook: Notebook, models_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run("%llm create brief from=m")
    assert not notebook.run("%llm rm m").success
    assert "brief is made of m; remove that first, or add --force" in capsys.readouterr().out
    assert (models_dir / "m.gguf").exists()
    assert notebook.run("%llm rm --force m").success
    assert "brief is made of m, and will not load without it" in notebook.plain
    assert not (models_dir / "m.gguf").exists()


def test_loaded_model_is_unloaded_before_it_goes(
    notebook: Notebook, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook.run("%llm load toy")
    info = notebook.engine.info
    held = replace(info, model=replace(info.model, path=str(models_dir / "m.gguf")))
    monkeypatch.setattr(notebook.engine, "info", held)
    assert notebook.run("%llm rm m").success
    assert notebook.engine.is_closed
    assert "was unloaded\nremoving m frees" in notebook.plain


def test_tuned_model_is_unloaded_and_goes_with_its_tuning(
    notebook: Notebook, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = keep(models_dir / "m.gguf", load_config(), Setting("Q8_0"))
    notebook.run("%llm load toy")
    info = notebook.engine.info
    held = replace(info, model=replace(info.model, path=str(place.weights("Q8_0"))))
    monkeypatch.setattr(notebook.engine, "info", held)
    assert notebook.run("%llm rm m").success
    assert notebook.engine.is_closed
    assert place.weights("Q8_0").name in notebook.plain
    assert [path for path in models_dir.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("%llm create", "write %llm create NAME -f FILE", id="create nothing"),
        pytest.param("%llm create x", "write %llm create NAME -f FILE", id="create of nothing"),
        pytest.param("%llm create x -f", "write %llm create NAME -f FILE", id="no file"),
        pytest.param("%llm create x -f nowhere", "nowhere cannot be read", id="missing file"),
        pytest.param("%llm create x temperature=1", "from=MODEL is missing", id="no base"),
        pytest.param("%%llm create\nFROM m", "%%llm create NAME", id="cell without a name"),
        pytest.param("%%llm create x from=m\nFROM m", "%%llm create NAME", id="cell with options"),
        pytest.param("%%llm load m\nFROM m", "%%llm is for %%llm create NAME", id="cell of another command"),
        pytest.param("%%llm creat x\nFROM m", "did you mean create?", id="misspelt in a cell"),
        pytest.param("%llm show a b", "write %llm show [NAME", id="two models to show"),
        pytest.param("%llm show --modelfile", "write %llm show [NAME", id="no model to show"),
        pytest.param("%llm show m --modefile", "write %llm show [NAME", id="unknown switch"),
        pytest.param("%llm show mm", "no model 'mm'", id="unknown model to show"),
        pytest.param("%llm cp m", "write %llm cp SOURCE DESTINATION", id="no destination"),
        pytest.param("%llm cp m m", "is the name that it has", id="copy onto itself"),
        pytest.param("%llm rm", "write %llm rm NAME", id="nothing to remove"),
        pytest.param("%llm rm -f m", "write %llm rm NAME", id="short switch"),
        pytest.param("%llm rm mm", "no model 'mm'", id="unknown model to remove"),
        pytest.param("%llm rm ../m", "no model", id="leaves the folder"),
        pytest.param("%llm remove m", "rm", id="another word"),
        pytest.param("%llm load m lora=a.gguf", "%llm create NAME from=m adapter=a.gguf", id="adapter of a load"),
    ],
)
def test_wrong_line_is_one_line_of_error(
    notebook: Notebook, models_dir: Path, line: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not notebook.run(line).success
    shown = capsys.readouterr()
    assert says in shown.out + shown.err
    assert (shown.out + shown.err).strip().count("\n") == 0
    assert [path.name for path in models_dir.rglob("*") if path.is_file()] == ["m.gguf"]
