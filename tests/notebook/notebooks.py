"""The notebooks that come with nbllm: `python -m tests.notebook.notebooks [NAME ...]` runs them and keeps
their outputs."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.notebook.kernel import ROOT, environment
from tests.notebook.on_server import served_kernel

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ON_SERVER = ("02-local-api",)
"""These are about the server that runs them."""
_TIMEOUT_S = 100
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def executed(path: Path) -> Any:
    """The notebook after a run from top to bottom in a kernel of this Python, which changes no file.

    It has a home of its own, with no answer of an earlier run in it.
    """
    notebook = read(path)
    options: dict[str, Any] = {"timeout": _TIMEOUT_S, "record_timing": False, "coalesce_streams": True}
    if path.stem in ON_SERVER:
        with TemporaryDirectory() as folder, served_kernel(Path(folder)) as kernel:
            client = NotebookClient(notebook, km=kernel, **options)
            client.execute()
            client.kc.stop_channels()  # type: ignore[union-attr]  # it has run
        return notebook
    beside_it = {"metadata": {"path": path.parent}}
    with TemporaryDirectory() as home:
        NotebookClient(notebook, resources=beside_it, **options).execute(env=environment() | _at_home_in(home))
    return notebook


def _at_home_in(folder: str) -> dict[str, str]:
    """matplotlib's list of fonts takes seconds to make, so that one stays where it is."""
    import matplotlib.font_manager

    return {"HOME": folder, "XDG_CACHE_HOME": f"{folder}/.cache", "MPLCONFIGDIR": matplotlib.get_cachedir()}


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _keep(path: Path) -> None:
    notebook = executed(path)
    notebook.metadata = _METADATA  # a kernel adds the version of its Python
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    for path in NOTEBOOKS:
        if path.stem in (sys.argv[1:] or [path.stem]):
            _keep(path)
