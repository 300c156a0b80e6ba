"""`import nbllm` is free: what costs time is imported where it is used."""

from __future__ import annotations

import json
import subprocess
import sys

COSTLY = [
    "IPython",
    "anywidget",
    "asyncio",
    "ctypes",
    "ipywidgets",
    "jinja2",
    "jupyter_core",
    "jupyter_server",
    "llama_cpp",
    "llguidance",
    "markdown_it",
    "numpy",
    "pandas",
    "platformdirs",
    "psutil",
    "pygments",
    "tornado",
    "traitlets",
]


def test_import_loads_nothing_costly() -> None:
    script = "import json, sys, nbllm; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "nbllm" in loaded
    assert not loaded.intersection(COSTLY)


def test_a_missing_public_name_loads_nothing_costly() -> None:
    script = (
        "import json, sys, nbllm; hasattr(nbllm, 'no_such_name'); dir(nbllm); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)).intersection(COSTLY)
