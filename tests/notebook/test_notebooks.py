"""The notebooks that come with nbllm run from top to bottom, and are kept with the outputs of such a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.notebook.kernel import ROOT, environment

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def shape(notebook: Any) -> list[list[tuple[str, list[str]]]]:
    """What kind of outputs each code cell has."""
    return [
        [(output.output_type, sorted(output.get("data", ()))) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def answers(notebook: Any) -> list[str]:
    """The text of each cell that a model answered, without the figures below it."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    found = [output.data["text/markdown"] for output in outputs if "nbllm" in output.get("metadata", ())]
    return [text.rpartition("\n\n<small>")[0] for text in found]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_notebook_runs_as_it_was_kept(path: Path) -> None:
    kept = read(path)
    again = read(path)
    client = NotebookClient(
        again, timeout=100, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": path.parent}}
    )
    client.execute(env=environment())
    assert shape(again) == shape(kept)
    assert all(answers(again))
    assert "Paris" in answers(again)[0]
    assert "Rome" in answers(again)[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_outputs_are_whole_and_of_nobody(path: Path) -> None:
    kept = read(path)
    nbformat.validate(kept)
    counts = [cell.execution_count for cell in kept.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert all(answers(kept))
    assert not re.search(r"/home/|/root/|/tmp/|site-packages", path.read_text(encoding="utf-8"))


def test_first_notebook_is_there() -> None:
    assert "01-chat" in [path.stem for path in NOTEBOOKS]
