"""The notebooks that come with nbllm: `python -m tests.notebook.notebooks` runs them and keeps their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.notebook.kernel import ROOT, environment

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
_TIMEOUT_S = 100
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def executed(path: Path) -> Any:
    """The notebook after a run from top to bottom in a kernel of this Python, which changes no file."""
    notebook = read(path)
    folder = {"metadata": {"path": path.parent}}
    client = NotebookClient(notebook, timeout=_TIMEOUT_S, record_timing=False, coalesce_streams=True, resources=folder)
    client.execute(env=environment())
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _keep(path: Path) -> None:
    notebook = executed(path)
    notebook.metadata = _METADATA  # a kernel adds the version of its Python
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    for path in NOTEBOOKS:
        _keep(path)
