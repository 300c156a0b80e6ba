"""Whole notebooks without a person: run twice from the cache, and ended by an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.notebook.kernel import environment

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("smollm2_path")]

CELLS = [
    "%load_ext nbllm\nfruit = ['apple', 'pear']",
    "%%chat --cache -s 'You are a helpful assistant.' --max-tokens 12\nName a dish with {fruit}.",
    "%%chat --cache --max-tokens 12 -u -O second\nAnd another?",
    "second.text",
    "%%chat --cache --max-tokens 24 --temperature 0 --schema 'name, price float' --format json\nInvent a product.",
]


def notebook(cells: list[str]) -> Any:
    made = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    made.cells = [
        nbformat.v4.new_code_cell(cell, id=f"cell-{index}")  # type: ignore[no-untyped-call]
        for index, cell in enumerate(cells)
    ]
    return made


def executed(cells: list[str], folder: Path) -> str:
    made = notebook(cells)
    client = NotebookClient(made, timeout=100, record_timing=False, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment() | {"XDG_CACHE_HOME": str(folder / "cache")})
    text: str = nbformat.writes(made)  # type: ignore[no-untyped-call]
    return text


def test_run_all_from_the_cache_is_the_same_to_the_byte(tmp_path: Path) -> None:
    first = executed(CELLS, tmp_path)
    again = executed([*CELLS, "import sys; 'llama_cpp' in sys.modules"], tmp_path)
    last = nbformat.reads(again, as_version=4)  # type: ignore[no-untyped-call]
    assert last.cells.pop().outputs[0].data["text/plain"] == "False"  # no model was loaded for it
    assert nbformat.writes(last) == first  # type: ignore[no-untyped-call]


def test_nbconvert_ends_with_an_error_at_the_first_cell_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "failing.ipynb"
    nbformat.write(notebook(["%load_ext nbllm", "%%chat -m nosuchmodel\nhi"]), path)  # type: ignore[no-untyped-call]
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout", str(path)]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode != 0
    assert "nosuchmodel" in ran.stderr
